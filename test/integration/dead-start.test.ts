import { beforeAll, describe, expect, test } from 'vitest';
import { createAuthority } from '../../src/rpc/certificates.ts';
import {
  contentsOf,
  faultImage,
  manifestType,
  pushTo,
  type FaultImage,
} from '../faults/matrix/fault-image.ts';
import { checkedDigest } from '../faults/matrix/scene.ts';
import type { RequestLine } from '../support/cluster.ts';
import { startDeafPort } from '../support/deaf-port.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { expectOciError } from '../support/expect-oci-error.ts';
import { startFaultProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { MemoryRegistry } from '../support/memory-registry.ts';
import { NameServer, type NameServerMode } from '../support/name-server.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { get, head, type GetAnswer } from '../support/oci-client.ts';
import { freePort } from '../support/ports.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

expectNoLeaks();

const scope = suiteScope('dead-start');
const repository = 'team/app';
const layerBytes = 3_000_000;
/** For a registry that is slow and alive: beyond every test's time, so that who waits for it fails. */
const upstreamHeadersMs = 600_000;

/** What is wrong with each registry. */
const registries = {
  'nameless.test': 'has a name that cannot be looked up',
  'refusing.test': 'refuses connections',
  'silent.test': 'takes connections and says nothing',
} as const;
type RegistryName = keyof typeof registries;
const registryNames = Object.keys(registries) as RegistryName[];

let upstream: MemoryRegistry;
let proxies: FaultProxy[];
let names: NameServer;

async function startDeadNode(name: string, mode: NameServerMode): Promise<DirectoryNode> {
  names.mode = mode;
  names.questionCount = 0;
  const [refusing, silent] = proxies as [FaultProxy, FaultProxy];
  await refusing.setMode({ kind: 'refuse' });
  await silent.setMode({ kind: 'silent' });
  const agentAddress = `127.0.0.1:${await freePort()}`;
  const deafPort = await freePort();
  await startDeafPort(scope(), deafPort);
  const node = await DirectoryNode.create(
    scope(),
    {
      name,
      agentAddress,
      members: [
        { name, address: agentAddress },
        { name: 'gone', address: `127.0.0.1:${await freePort()}` },
        { name: 'deaf', address: `127.0.0.1:${deafPort}` },
        { name: 'nameless', address: 'agent.nameless.test:7000' },
      ],
      upstreams: {
        'nameless.test': {
          url: `http://registry.nameless.test:${upstream.port}`,
          allowAddresses: ['127.0.0.0/8'],
        },
        'refusing.test': { url: refusing.url },
        'silent.test': { url: silent.url },
      },
      registry: { budgets: { upstreamHeadersMs } },
      launcher: names.launcher,
    },
    await createAuthority(),
  );
  await node.startAgent();
  await node.startRegistry();
  return node;
}

function urlOf(node: DirectoryNode, registry: string, path: string): string {
  return `${node.url}/v2/${repository}/${path}?ns=${registry}`;
}

async function hold(node: DirectoryNode, image: FaultImage): Promise<void> {
  for (const { digest, bytes } of contentsOf(image)) await node.hold(digest, bytes);
}

async function observe(node: DirectoryNode, registry: string, image: FaultImage): Promise<void> {
  await node.observe(`${registry}/${repository}:${image.tag}`, {
    digest: checkedDigest(image.manifest.digest),
    mediaType: manifestType,
    sizeBytes: image.manifest.bytes.length,
    observedAtMs: Date.now() - 60_000,
  });
}

/** The registry's own line about a request. */
async function lineAbout(
  node: DirectoryNode,
  registry: string,
  wanted: { readonly part: string; readonly method?: string; readonly from?: number },
): Promise<RequestLine> {
  const { from, method = 'GET', part } = wanted;
  const isMeant = ({ method: asked, url }: RequestLine): boolean =>
    asked === method && url.includes(part) && url.includes(registry);
  return waitFor(() => node.requests(from).findLast(isMeant), { what: `a line about ${part}` });
}

async function expectHealthy(node: DirectoryNode): Promise<void> {
  for (const port of [node.adminPort, node.agentAdminPort]) {
    for (const page of ['healthz', 'readyz']) {
      expect((await get(`http://127.0.0.1:${port}/${page}`)).status, page).toBe(200);
    }
  }
  expect([node.agent.hasExited, node.registry.hasExited]).toEqual([false, false]);
}

function expectContent(answer: GetAnswer, { bytes }: { readonly bytes: Buffer }): void {
  expect(answer.status, answer.body.subarray(0, 500).toString()).toBe(200);
  expect(answer.body.equals(bytes)).toBe(true);
}

beforeAll(async () => {
  upstream = await MemoryRegistry.start(scope());
  proxies = [
    await startFaultProxy(scope(), { targetPort: upstream.port }),
    await startFaultProxy(scope(), { targetPort: upstream.port }),
  ];
  names = await NameServer.start(scope(), `127.83.${process.pid % 250}.53`);
});

describe.each(['silent', 'fail'] as const)('a node that starts with names that %s', (mode) => {
  let node: DirectoryNode;
  const held = faultImage(`held ${mode}`, { layerBytes });
  const elsewhere = faultImage(`elsewhere ${mode}`, { layerBytes });

  beforeAll(async () => {
    pushTo(upstream, elsewhere);
    node = await startDeadNode(`node-${mode}`, mode);
    await hold(node, held);
    for (const registry of registryNames) await observe(node, registry, held);
    // What was observed is read from disk by an agent that has never heard of anybody.
    await node.agent.kill('SIGKILL');
    await node.startAgent();
  });

  test('is ready, and stays so', () => expectHealthy(node));

  describe.each(registryNames)('whose registry %s is dead', (registry) => {
    test('answers what it has and waits for no registry: blobs, manifests and tags that it saw', async () => {
      const [layer, manifest, tag] = await Promise.all([
        get(urlOf(node, registry, `blobs/${held.layer.digest}`)),
        get(urlOf(node, registry, `manifests/${held.manifest.digest}`)),
        get(urlOf(node, registry, `manifests/${held.tag}`), { headers: { accept: manifestType } }),
      ]);

      expectContent(layer, held.layer);
      expectContent(manifest, held.manifest);
      expectContent(tag, held.manifest);
      expect(tag.headers['salvor-observed-at']).toBeDefined();
      expect((await lineAbout(node, registry, { part: held.tag })).decision).toBe('offline_tag');
      const layerLine = await lineAbout(node, registry, { part: held.layer.digest });
      expect(layerLine.source).toBe(`node/${node.name}`);

      const again = await head(urlOf(node, registry, `manifests/${held.tag}`));
      expect([again.status, again.headers['docker-content-digest']]).toEqual([
        200,
        held.manifest.digest,
      ]);
      const line = await lineAbout(node, registry, { part: held.tag, method: 'HEAD' });
      expect(line.decision).toBe('offline_tag');
    });

    test.each([
      ['blob', `blobs/${elsewhere.layer.digest}`],
      ['digest', `manifests/${elsewhere.manifest.digest}`],
      ['tag', `manifests/${elsewhere.tag}`],
    ])('says 503 and waits for no registry for a %s that it has not', async (_, path) => {
      const answer = await get(urlOf(node, registry, path));

      expectOciError(answer, { status: 503, code: 'UNAVAILABLE' });
      const line = await lineAbout(node, registry, { part: path });
      expect(line.decision).toBe('unavailable');
    });
  });

  test('does not hang with many that ask at once, and serves what it has among them', async () => {
    const paths = [
      `blobs/${held.layer.digest}`,
      `manifests/${held.tag}`,
      ...contentsOf(elsewhere).map(({ digest }) => `blobs/${digest}`),
      `manifests/${elsewhere.tag}`,
    ];
    const wanted = Array.from({ length: 10 }, () =>
      registryNames.flatMap((registry) => paths.map((path) => ({ registry, path }))),
    ).flat();
    const answers = await Promise.all(
      wanted.map(async ({ registry, path }) => {
        const { status } = await get(urlOf(node, registry, path));
        return `${status} ${path.includes(held.tag) || path.includes(held.layer.digest)}`;
      }),
    );
    expect(new Set(answers)).toEqual(new Set(['200 true', '503 false']));
    await expectHealthy(node);
  });

  test('has asked for names all the while, and nowhere else', () => {
    expect(names.questionCount).toBeGreaterThan(1);
  });

  test('pulls as if nothing had been when the world is back, without a restart', async () => {
    names.mode = 'answer';
    for (const proxy of proxies) {
      await proxy.setMode({ kind: 'pass' });
      // What was swallowed before stays so.
      proxy.resetConnections();
    }
    for (const registry of registryNames) {
      await waitFor(
        async () => {
          const tag = await head(urlOf(node, registry, `manifests/${elsewhere.tag}`));
          return tag.status === 200;
        },
        { timeoutMs: 60_000, what: `${registry} back` },
      );
      const from = node.registry.lineCount;
      const layer = await get(urlOf(node, registry, `blobs/${elsewhere.layer.digest}`));
      expectContent(layer, elsewhere.layer);
      const line = await lineAbout(node, registry, { part: elsewhere.layer.digest, from });
      expect(line.source).toBe('upstream');
    }
    await expectHealthy(node);
  });
});
