import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import type { ProofResult } from '../../src/cli/prove/proof-run.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { summarize } from '../../src/report/build-report.ts';
import { REPORT_SCHEMA, type Report, type ReportImage } from '../../src/report/report.ts';
import {
  contentsOf,
  faultImage,
  manifestType,
  type FaultImage,
} from '../faults/matrix/fault-image.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { hostPlatform } from '../support/image.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { get } from '../support/oci-client.ts';
import { Program } from '../support/process.ts';
import { sourceProgram } from '../support/program-path.ts';
import { suiteScope } from '../support/test-scope.ts';

expectNoLeaks();

const scope = suiteScope('report-prove');
const registryName = 'registry.test';
const mebibyte = 1024 ** 2;

let prover: DirectoryNode;
let holder: DirectoryNode;
/** What an agent says on its admin port, true or not. */
let said: Report;
let configPath: string;
let count = 0;

beforeAll(async () => {
  ({ prover, holder } = await DirectoryNode.createGroup(scope(), ['prover', 'holder'], {
    // Nobody listens there.
    upstreams: { [registryName]: { url: 'http://127.0.0.1:9' } },
  }));
  await holder.startAgent();
  await prover.startAgent();
  await prover.startRegistry();
  const server = createServer((_, response) => response.end(JSON.stringify(said)));
  server.listen({ host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  scope().defer(async () => {
    server.closeAllConnections();
    const closed = once(server, 'close');
    server.close();
    await closed;
  });
  const config = JSON.parse(await readFile(prover.configPath, 'utf8')) as {
    registry: object;
    agent: object;
  };
  const { port } = server.address() as AddressInfo;
  configPath = join(scope().directory, 'report.json');
  const agent = { ...config.agent, admin: `127.0.0.1:${port}` };
  await writeFile(configPath, JSON.stringify({ ...config, agent }));
});

/** Brings an image onto the holder, without one of its parts perhaps. */
async function held(image: FaultImage, without?: string): Promise<FaultImage> {
  for (const { digest, bytes } of contentsOf(image)) {
    if (digest !== without) await holder.hold(digest, bytes);
  }
  await holder.observe(`${registryName}/team/app:${image.tag}`, {
    digest: image.manifest.digest as Digest,
    mediaType: manifestType,
    sizeBytes: image.manifest.bytes.length,
    observedAtMs: Date.now(),
  });
  return image;
}

function imageOf(image: FaultImage, verdict: ReportImage['verdict']): ReportImage {
  const { config, layer, manifest } = image;
  const parts = { manifest, config, layer };
  return {
    image: `${registryName}/team/app:${image.tag}`,
    platform: `${hostPlatform.os}/${hostPlatform.architecture}`,
    runsOn: hostPlatform,
    verdict,
    reasons: [],
    digest: manifest.digest as Digest,
    mediaType: manifestType,
    sizeBytes: layer.bytes.length,
    confirmedAt: null,
    recordedAt: null,
    isInUse: false,
    isServableByDigest: true,
    parts: Object.entries(parts).map(([role, { digest, bytes }]) => ({
      role: role as 'manifest',
      digest: digest as Digest,
      sizeBytes: bytes.length,
    })),
    nodes: [],
  };
}

function reportOf(...images: readonly ReportImage[]): Report {
  return {
    schema: REPORT_SCHEMA,
    takenAt: new Date().toISOString(),
    tookMs: 1,
    isComplete: true,
    members: [],
    summary: summarize(images),
    images,
    blobs: {},
  };
}

async function prove(...flags: readonly string[]): Promise<Program> {
  count += 1;
  return Program.start(scope(), {
    name: `prove-${count}`,
    command: sourceProgram.command,
    arguments: [sourceProgram.main, 'report', '--prove', '--config', configPath, ...flags],
  });
}

function written(program: Program, stream: 'stdout' | 'stderr'): string {
  const lines = program.lines().filter((line) => line.stream === stream);
  return lines.map(({ text }) => text).join('\n');
}

async function metric(name: string): Promise<number | undefined> {
  const { body } = await get(`http://127.0.0.1:${prover.agentAdminPort}/metrics`);
  const value = new RegExp(`^salvor_agent_proof_${name} (.*)$`, 'm').exec(body.toString())?.[1];
  return value === undefined ? undefined : Number(value);
}

describe('salvor report --prove', () => {
  test('exits with 0 when every verdict agrees', async () => {
    const there = await held(faultImage('there', { layerBytes: 2 * mebibyte }));
    const missing = faultImage('missing', { layerBytes: 1000 });
    await held(missing, missing.layer.digest);
    said = reportOf(imageOf(missing, 'not-servable'), imageOf(there, 'single-copy'));
    expect(await metric('images')).toBeUndefined();

    const program = await prove();
    expect(await program.exited).toEqual({ code: 0, signal: null });
    const text = written(program, 'stdout');
    expect(text).toContain('1 of 2 images (50 %) can be served without their registries');
    expect(text).toContain('Proved 2 of 2 images: a new node would get 1 of them');
    expect(text).toContain('Every verdict agrees with its proof');
    expect([await metric('images'), await metric('servable_images')]).toEqual([2, 1]);
    expect([await metric('differences'), await metric('complete')]).toEqual([0, 1]);
    expect(await metric('read_bytes')).toBeGreaterThan(2 * mebibyte);
    expect(await metric('age_seconds')).toBeGreaterThanOrEqual(0);
  });

  test('names every verdict that differs, and exits with 5', async () => {
    const there = await held(faultImage('said missing', { layerBytes: 1000 }));
    const missing = faultImage('said there', { layerBytes: 1000 });
    await held(missing, missing.layer.digest);
    const wrong = await held(faultImage('wrong bytes', { layerBytes: 2 * mebibyte }));
    await holder.hold(wrong.layer.digest, Buffer.alloc(2 * mebibyte));
    said = reportOf(
      imageOf(there, 'not-servable'),
      imageOf(missing, 'survives'),
      imageOf(wrong, 'single-copy'),
    );

    const program = await prove('--json');
    expect(await program.exited).toEqual({ code: 5, signal: null });
    const output = JSON.parse(written(program, 'stdout')) as Report & { proof: ProofResult };
    expect(output.images.length).toBe(3);
    const { differences, outcomes } = output.proof;
    expect(differences).toBe(3);
    expect(outcomes.map(({ difference }) => difference)).toEqual([
      'the verdict is not-servable, but all of it can be pulled',
      expect.stringContaining(`it cannot be pulled: layer ${missing.layer.digest}: Cannot fetch`),
      expect.stringContaining(`it cannot be pulled: layer ${wrong.layer.digest}: `),
    ]);
    expect(await metric('differences')).toBe(3);

    const forPeople = await prove();
    expect(await forPeople.exited).toEqual({ code: 5, signal: null });
    expect(written(forPeople, 'stdout')).toContain('3 OF 3 VERDICTS DIFFER from their proofs:');
  });

  test('stops at SIGINT, says what was proven so far and exits with 6', async () => {
    const quick = await held(faultImage('quick', { layerBytes: 1000 }));
    const slow = await held(faultImage('slow', { layerBytes: 8 * mebibyte }));
    said = reportOf(imageOf(quick, 'single-copy'), imageOf(slow, 'single-copy'));

    const program = await prove('--progress', '--bandwidth', '64KiB/s', '--concurrency', '1');
    const line = await program.waitForLine(/^proved 1 of 2 images, .* left, 0 differences$/);
    expect(line).toContain('of 8.0 MiB');
    await program.kill('SIGINT');
    expect(await program.exited).toEqual({ code: 6, signal: null });
    const text = written(program, 'stdout');
    expect(text).toContain('STOPPED after 1 of 2 images: a new node would get 1 of them');
    expect(text).toContain('Every verdict agrees with its proof, as far as it got');
    expect([await metric('images'), await metric('complete')]).toEqual([1, 0]);
  });

  test('fails where there is no registry to ask', async () => {
    said = reportOf(imageOf(faultImage('any', { layerBytes: 1000 }), 'survives'));
    const nowhere = join(scope().directory, 'nowhere.sock');
    const program = await prove('--registry-prove-socket', nowhere);
    expect(await program.exited).toEqual({ code: 1, signal: null });
    expect(written(program, 'stderr')).toContain(`salvor: Cannot ask the registry at ${nowhere}`);
  });

  test('refuses a bandwidth at which registries would hang up', async () => {
    const program = await prove('--bandwidth', '1KiB/s');
    expect(await program.exited).toEqual({ code: 2, signal: null });
    expect(written(program, 'stderr')).toContain('64KiB/s or more');
  });
});
