import { execFile } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import type { Report, ReportImage } from '../../src/report/report.ts';
import { startCluster, type Cluster, type ClusterNode } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage, buildIndex, hostPlatform, type Image } from '../support/image.ts';
import { freePort } from '../support/ports.ts';
import { sourceProgram } from '../support/program-path.ts';
import { pushImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';

const scope = suiteScope('report');
const importedName = 'docker.io/library/imported:1';
const otherPlatform = { os: 'linux', architecture: process.arch === 'arm64' ? 'amd64' : 'arm64' };

let upstream: DockerRegistry;
let cluster: Cluster;
let nodes: Record<'a' | 'b' | 'c', ClusterNode>;
let split: Image;
let hole: Image;
let passing: Image;
let movedFrom: Image;

const reference = (name: string): string => `${upstream.host}/report/${name}:v1`;

/** Three layers of its own, in an index that lists another platform too. */
async function push(name: string, seed = name): Promise<Image> {
  const layers = [1, 2, 3].map((n) => ({ randomBytes: 20_000, seed: `${seed}-${n}` }));
  const { directory } = scope();
  const index = buildIndex([
    await buildImage({ directory, layers }),
    await buildImage({ directory, layers: layers.slice(0, 1), platform: otherPlatform }),
  ]);
  await pushImage({ baseUrl: upstream.url, repository: `report/${name}`, tag: 'v1' }, index);
  return index;
}

/** The digest of a layer for this platform. */
function layer(image: Image, number: 1 | 2 | 3): string {
  return image.children[0]!.blobs[number]!.digest;
}

async function salvorReport(
  ...flags: string[]
): Promise<{ code: number; out: string; error: string }> {
  const admin = `127.0.0.1:${nodes.a.agentAdminPort}`;
  const { command, main } = sourceProgram;
  return new Promise((resolve) => {
    execFile(command, [main, 'report', '--agent-admin', admin, ...flags], (error, out, text) => {
      resolve({ code: Number(error?.code ?? 0), out, error: text });
    });
  });
}

async function takeReport(...flags: string[]): Promise<Report> {
  const { out, error } = await salvorReport('--json', ...flags);
  expect(error).toBe('');
  return JSON.parse(out) as Report;
}

function imageOf(report: Report, name: string): ReportImage {
  const found = report.images.filter(({ image }) => image === name);
  expect(found, name).toHaveLength(1);
  return found[0]!;
}

const codesOf = ({ reasons }: ReportImage): string[] => reasons.map(({ code }) => code);

beforeAll(async () => {
  upstream = await startDockerRegistry(scope());
  cluster = await startCluster(scope(), {
    nodes: ['a', 'b', 'c'],
    upstreams: { [upstream.host]: { url: upstream.url } },
    // What is broken here has to stay broken.
    agent: { repair: { mode: 'off' }, backfill: { mode: 'off' }, copies: { wanted: 0 } },
  });
  nodes = { a: cluster.node('a'), b: cluster.node('b'), c: cluster.node('c') };
  const [a, b, c] = [nodes.a.containerd, nodes.b.containerd, nodes.c.containerd];
  await push('both');
  await push('single');
  split = await push('split');
  hole = await push('hole');
  passing = await push('passing');
  movedFrom = await push('moved');
  for (const name of ['both', 'single', 'split', 'hole', 'passing', 'moved']) {
    await a.pull(reference(name));
  }
  for (const name of ['both', 'split']) await b.pull(reference(name));
  await rm(a.blobPath(layer(split, 1)));
  await rm(b.blobPath(layer(split, 2)));
  await rm(a.blobPath(layer(hole, 3)));
  const manifest = passing.children[0]!.digest;
  await a.ctr(['content', 'label', manifest, 'containerd.io/gc.ref.content.l.1=']);
  await push('moved', 'moved-later');
  const headers = { accept: split.mediaType };
  const manifestUrl = `${nodes.b.url}/v2/report/moved/manifests/v1?ns=${upstream.host}`;
  expect((await fetch(manifestUrl, { headers, method: 'HEAD' })).status).toBe(200);
  const archive = join(scope().directory, 'image.tar');
  await b.ctr(['images', 'export', archive, reference('both')]);
  await c.ctr(['images', 'import', '--no-unpack', archive]);
  await c.ctr(['images', 'tag', reference('both'), importedName]);
  await c.ctr(['images', 'rm', reference('both')]);
}, 180_000);

describe('salvor report', () => {
  test('salvor report says what to do where the agent is not asked, or not found', async () => {
    const { agentAdminPort, registryAdminPort } = nodes.a;
    const socketPath = join(scope().socketDirectory, 'a-agent.sock');
    const look = async (port: number, socket: string): Promise<string> => {
      // The last one counts.
      const flags = ['--agent-admin', `127.0.0.1:${port}`, '--registry-agent-socket', socket];
      const { code, error, out } = await salvorReport(...flags);
      expect([code, out]).toEqual([1, '']);
      return error;
    };
    expect(agentAdminPort).not.toBe(registryAdminPort);
    const free = await freePort();
    expect(await look(free, socketPath)).toMatch(
      /ECONNREFUSED, but an agent answers at \S+: its agent\.admin is another address; give/,
    );
    expect(await look(free, '/no/such.sock')).toMatch(
      /ECONNREFUSED, and nobody answers at \/no\/such\.sock: start `salvor agent` on this node/,
    );
    expect(await look(registryAdminPort, socketPath)).toContain('that is the registry');
  });

  test('salvor report says of every image what a new node would meet, and why', async () => {
    const report = await takeReport();
    expect(report.isComplete).toBe(true);
    expect(report.members.map(({ node, state }) => [node, state])).toEqual([
      ['a', 'answered'],
      ['b', 'answered'],
      ['c', 'answered'],
    ]);
    const verdicts = Object.fromEntries(
      report.images.map(({ image, verdict }) => [image, verdict]),
    );
    expect(verdicts).toEqual({
      [reference('both')]: 'survives',
      [reference('single')]: 'single-copy',
      [reference('split')]: 'single-copy',
      [reference('hole')]: 'not-servable',
      [reference('passing')]: 'not-servable',
      [reference('moved')]: 'not-servable',
      // What the tag named before: Pods may still ask for it by digest.
      [`${upstream.host}/report/moved@${movedFrom.digest}`]: 'single-copy',
      [importedName]: 'not-servable',
    });
    expect(report.images.map(({ verdict }) => verdict)).toEqual([
      ...Array.from({ length: 4 }, () => 'not-servable'),
      ...Array.from({ length: 3 }, () => 'single-copy'),
      'survives',
    ]);
    const one = (name: string): ReportImage => imageOf(report, reference(name));
    expect(one('single').platform).toBe(`linux/${hostPlatform.architecture}`);
    expect(one('single').reasons[0]?.message).toContain('only a has ');
    expect(one('both').nodes.map(({ node, state }) => [node, state])).toEqual([
      ['a', 'complete'],
      ['b', 'complete'],
    ]);
    expect(Date.parse(one('both').confirmedAt ?? '')).toBeGreaterThan(0);
    expect(report.blobs[layer(split, 1) as never]?.nodes).toEqual(['b']);
    expect(one('split').nodes.map(({ state }) => state)).toEqual(['partial', 'partial']);
    expect(one('hole').reasons).toMatchObject([
      { code: 'layer-missing', digests: [layer(hole, 3)] },
    ]);
    expect(one('passing').reasons).toMatchObject([
      { code: 'passing', digests: [layer(passing, 2)] },
    ]);
    expect(codesOf(one('moved'))).toEqual(['tag-moved']);
    expect(codesOf(imageOf(report, importedName))).toEqual(['registry-never-seen']);
    expect(imageOf(report, importedName).isServableByDigest).toBe(true);
    expect(report.summary).toMatchObject({ images: 8, survives: 1, singleCopy: 3, notServable: 4 });
  });

  test('salvor report notices what garbage collection took', async () => {
    const { containerd } = nodes.a;
    // Removing something is what makes containerd collect.
    await containerd.removeImage(reference('moved'));
    await expect
      .poll(async () => codesOf(imageOf(await takeReport(), reference('passing'))), {
        timeout: 20_000,
      })
      .toEqual(['layer-missing']);
  });

  test('salvor report prints the worst first, filters, and fails on what it is told to', async () => {
    const text = await salvorReport('--limit', '1', '--progress');
    expect(text.code).toBe(0);
    expect(text.out).toMatch(/^3 of 6 images \(50 %\) can be served without their registries: /);
    expect(text.out).toContain('NOT SERVABLE');
    expect(text.out).not.toContain('SURVIVES:');
    expect(text.out).toContain('… and 5 more: --all shows them');
    const all = await salvorReport('--all');
    expect(all.out).toContain('SURVIVES:');
    expect(all.out).toContain(`layer-missing: no node has the layer ${layer(hole, 3)}`);
    const filtered = await takeReport('--node', 'b', '--verdict', 'single-copy');
    expect(filtered.images.map(({ image }) => image)).toEqual([reference('split')]);
    const both = ['--image', reference('both')];
    expect((await salvorReport('--fail-on', 'not-servable')).code).toBe(3);
    expect((await salvorReport(...both, '--fail-on', 'single-copy')).code).toBe(0);
    expect((await salvorReport('--fail-on', 'incomplete')).code).toBe(0);
    expect((await salvorReport('--fail-on', 'nothing')).code).toBe(2);
    const metrics = await fetch(`http://127.0.0.1:${nodes.a.agentAdminPort}/metrics`);
    const lines = (await metrics.text()).split('\n');
    expect(lines).toContain('salvor_report_images{verdict="not-servable"} 3');
    expect(lines).toContain('salvor_report_servable_ratio 0.5');
    expect(lines.some((line) => line.startsWith('salvor_report_age_seconds '))).toBe(true);
  });

  test('a pull by a node that has nothing meets what salvor report said', async () => {
    const { images } = await takeReport();
    await upstream.kill('SIGKILL');
    const { containerd } = await cluster.add('fresh');
    for (const { image, verdict, reasons } of images) {
      const outcome = await containerd.pull(image).then(
        () => 'pulled',
        () => 'failed',
      );
      const said = verdict === 'not-servable' ? 'failed' : 'pulled';
      expect([image, outcome], JSON.stringify(reasons)).toEqual([image, said]);
    }
  });

  test('salvor report names members that do not answer, and calls itself incomplete', async () => {
    await nodes.c.agent.stop();
    const report = await takeReport('--fail-on', 'incomplete');
    expect(report.isComplete).toBe(false);
    expect(report.members.find(({ node }) => node === 'c')).toMatchObject({ state: 'no-answer' });
    const { code, out } = await salvorReport(
      '--fail-on',
      'incomplete',
      '--fail-on',
      'not-servable',
    );
    expect(code).toBe(4);
    expect(out).toContain('INCOMPLETE');
    expect(out).toMatch(/^! c: /m);
  });
});
