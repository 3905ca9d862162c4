import { access, constants } from 'node:fs/promises';
import { beforeAll, describe, expect, test } from 'vitest';
import type { ProofResult } from '../../src/cli/prove/proof-run.ts';
import { platformMatches } from '../../src/oci/manifest.ts';
import type { Report, ReportImage } from '../../src/report/report.ts';
import { hostPlatform, type Image } from '../support/image.ts';
import { get } from '../support/oci-client.ts';
import { Program } from '../support/process.ts';
import { sourceProgram } from '../support/program-path.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';
import { truthCases, type TruthCase } from './report-truth/truth-cases.ts';
import { TruthScene } from './report-truth/truth-scene.ts';

const scope = suiteScope('report-truth');

/** How it came out, as one comparison for all images shows it. */
type Outcome = 'servable' | 'not servable';

let scene: TruthScene;
let report: Report;
let proof: ProofResult;
let proofStatus: number | null;
const images = new Map<string, Image>();
/** What PullImage on the node without images came to. */
const pulled: Record<string, Outcome> = {};
/** What simpler reports would have said. */
const predicted: Record<string, { manifest: boolean; books: boolean }> = {};

beforeAll(async () => {
  scene = await TruthScene.start(scope());
  for (const { bring, build, name } of truthCases) {
    const image = await build(scene);
    images.set(name, image);
    await bring(scene, image).catch((error: unknown) => {
      throw new Error(`Cannot bring ${name} onto its nodes`, { cause: error });
    });
  }
  await waitFor(async () => (await scene.corruptBlobs('one')) >= 2, { timeoutMs: 30_000 });
  for (const { letGo, name } of truthCases) await letGo?.(scene, imageOf(name));
  await scene.upstream.kill('SIGKILL');
  await expectThere(true);

  report = await takeReport();
  for (const { name } of truthCases) predicted[name] = await scene.predictions(imageOf(name));
  await expectThere(true);
  await scene.collectGarbage('one');
  await expectThere(false);
  ({ proof, status: proofStatus } = await proveFrom('two'));
  for (const one of truthCases) pulled[one.name] = await pullOnEmptyNode(one);
}, 240_000);

function imageOf(name: string): Image {
  const image = images.get(name);
  if (image === undefined) throw new Error(`Cannot find the image of ${name}`);
  return image;
}

function referenceOf({ isSilentHost, name }: TruthCase): string {
  return scene.reference(name, isSilentHost === true ? scene.silentHost : undefined);
}

/** What garbage collection takes is there before, and not after. */
async function expectThere(isThere: boolean): Promise<void> {
  const { containerd } = scene.node('one');
  const collected = truthCases.flatMap((one) => one.collected?.(imageOf(one.name)) ?? []);
  expect(collected.length).toBeGreaterThanOrEqual(2);
  for (const digest of collected) {
    const can = await access(containerd.blobPath(digest), constants.R_OK).then(
      () => true,
      () => false,
    );
    expect(can, digest).toBe(isThere);
  }
}

async function takeReport(): Promise<Report> {
  const { agentAdminPort } = scene.node('one');
  const { body, status } = await get(`http://127.0.0.1:${agentAdminPort}/api/report`);
  expect(status).toBe(200);
  return JSON.parse(body.toString()) as Report;
}

/** Runs `salvor report --prove` on a node. */
async function proveFrom(name: 'two'): Promise<{ proof: ProofResult; status: number | null }> {
  const command = ['report', '--prove', '--json', '--config', scene.node(name).configPath];
  const program = await Program.start(scope(), {
    name: `prove-from-${name}`,
    command: sourceProgram.command,
    arguments: [sourceProgram.main, ...command],
  });
  const { code } = await program.exited;
  const output = program.lines().filter(({ stream }) => stream === 'stdout');
  const text = output.map((line) => line.text).join('\n');
  return { proof: (JSON.parse(text) as { proof: ProofResult }).proof, status: code };
}

async function pullOnEmptyNode(one: TruthCase): Promise<Outcome> {
  const { containerd } = scene.node('empty');
  return containerd.pull(referenceOf(one)).then(
    () => 'servable',
    () => 'not servable',
  );
}

/** What a report, or a proof of one, says of the images that this machine's platform is given. */
function saidBy(isServable: (reference: string) => boolean): Record<string, Outcome> {
  return Object.fromEntries(
    truthCases.map((one) => [one.name, isServable(referenceOf(one)) ? 'servable' : 'not servable']),
  );
}

function rowsOf(reference: string): ReportImage[] {
  return report.images.filter(
    ({ image, runsOn }) =>
      image === reference && (runsOn === null || platformMatches(runsOn, hostPlatform)),
  );
}

describe('a report of twenty images', () => {
  test('is put to the test in twenty states', () => {
    const expected = truthCases.map(({ isServable, name }) => [
      name,
      isServable ? 'servable' : 'not servable',
    ]);
    expect(expected.length).toBe(20);
    expect(pulled).toEqual(Object.fromEntries(expected));
    const reasons = truthCases.flatMap(({ because }) => because ?? []);
    expect(new Set(reasons).size).toBeGreaterThanOrEqual(6);
  });

  test('says of every one what PullImage on an empty node comes to', () => {
    const verdicts = saidBy((reference) =>
      rowsOf(reference).some(({ verdict }) => verdict !== 'not-servable'),
    );
    expect(verdicts).toEqual(pulled);
  });

  test('says why', () => {
    const said = truthCases.map((one) => {
      const codes = rowsOf(referenceOf(one)).flatMap(({ reasons }) =>
        reasons.map(({ code }) => code),
      );
      return [one.name, one.because === undefined || codes.includes(one.because as never)];
    });
    expect(said).toEqual(truthCases.map(({ name }) => [name, true]));
  });

  test('is right where manifests, or records of content, alone would not be', () => {
    const wrong = (by: 'manifest' | 'books'): string[] =>
      truthCases.flatMap(({ name }) =>
        (pulled[name] === 'servable') === predicted[name]?.[by] ? [] : [name],
      );
    expect(wrong('manifest')).toEqual(expect.arrayContaining(['layers-discarded', 'tag-moved']));
    expect(wrong('manifest').length).toBeGreaterThanOrEqual(3);
    expect(wrong('books')).toEqual(expect.arrayContaining(['layer-lost', 'corrupt-everywhere']));
    expect(wrong('books').length).toBeGreaterThanOrEqual(3);
  });

  test('is proven by salvor report --prove, byte by byte', () => {
    const differences = proof.outcomes.filter(({ difference }) => difference !== null);
    expect(differences).toEqual([]);
    expect(proofStatus).toBe(0);
    const { architecture, os } = hostPlatform;
    const host = ['unknown', `${os}/${architecture}`];
    const proofs = saidBy((reference) =>
      proof.outcomes.some(
        (one) => one.image === reference && host.includes(one.platform) && one.proof === 'servable',
      ),
    );
    expect(proofs).toEqual(pulled);
  });

  test('leaves what its proof came to in the metrics of the agent', async () => {
    const { agentAdminPort } = scene.node('two');
    const { body } = await get(`http://127.0.0.1:${agentAdminPort}/metrics`);
    const metrics = body.toString();
    expect(metrics).toContain(`salvor_agent_proof_images ${proof.images}\n`);
    expect(metrics).toContain('salvor_agent_proof_differences 0\n');
    expect(metrics).toMatch(/^salvor_agent_proof_age_seconds \d/m);
  });
});
