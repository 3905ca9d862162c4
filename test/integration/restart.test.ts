import { readFile, readdir, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { credentials } from '@grpc/grpc-js';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { AgentClient } from '../../src/rpc/agent-client.ts';
import {
  contentsOf,
  faultImage,
  manifestType,
  pushTo,
  type FaultImage,
} from '../faults/matrix/fault-image.ts';
import { checkedDigest } from '../faults/matrix/scene.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { startFaultProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { MemoryRegistry } from '../support/memory-registry.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { get, getHash, type GetAnswer } from '../support/oci-client.ts';
import { SeededRandom } from '../support/random.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

expectNoLeaks();

const scope = suiteScope('restart');
const registryName = 'registry.test';
const repository = 'team/app';
const layerBytes = 600_000;
const burstNames = 200;
const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
const random = new SeededRandom(seed);

type Role = 'agent' | 'registry';

let upstream: MemoryRegistry;
let proxy: FaultProxy;
/** The one that pulls and is killed, and the one that is asked afterwards. */
let puller: DirectoryNode;
let asker: DirectoryNode;

beforeAll(async () => {
  upstream = await MemoryRegistry.start(scope());
  proxy = await startFaultProxy(scope(), { targetPort: upstream.port });
  ({ puller, asker } = await DirectoryNode.createGroup(scope(), ['puller', 'asker'], {
    upstreams: { [registryName]: { url: proxy.url } },
    registry: { budgets: { probeIntervalMs: 200 } },
  }));
  for (const node of [puller, asker]) {
    await node.startAgent();
    await node.startRegistry();
  }
});

beforeEach(async () => {
  await proxy.setMode({ kind: 'pass' });
  for (const node of [puller, asker]) await waitFor(async () => !(await isInOutage(node)));
});

async function isInOutage(node: DirectoryNode): Promise<boolean> {
  const { body } = await get(`http://127.0.0.1:${node.adminPort}/metrics`);
  return /^salvor_registry_upstream_outage\{[^}]*\} 1$/m.test(body.toString());
}

function urlOf(node: DirectoryNode, path: string): string {
  return `${node.url}/v2/${repository}/${path}?ns=${registryName}`;
}

async function pullTag(node: DirectoryNode, tag: string): Promise<GetAnswer> {
  return get(urlOf(node, `manifests/${tag}`), { headers: { accept: manifestType } });
}

/** Puts into a node's store what its runtime would have after a pull. */
async function hold(node: DirectoryNode, image: FaultImage): Promise<void> {
  for (const { digest, bytes } of contentsOf(image)) await node.hold(digest, bytes);
}

/** Two images; the tag names the older one, as the asker has seen, and then the newer one. */
interface MovedTag {
  readonly tag: string;
  readonly older: FaultImage;
  readonly newer: FaultImage;
}

async function moveTag(what: string): Promise<MovedTag> {
  const older = faultImage(`${what} older ${seed}`, { layerBytes });
  const newer = faultImage(`${what} newer ${seed}`, { layerBytes });
  pushTo(upstream, older);
  pushTo(upstream, newer);
  const { tag } = newer;
  upstream.tag(tag, older.manifest.digest);
  const seen = await pullTag(asker, tag);
  expect(seen.headers['docker-content-digest']).toBe(older.manifest.digest);
  const seenAtMs = Date.now();
  // Upstreams tell the time in whole seconds, and observations go by that.
  await waitFor(() => Math.floor(Date.now() / 1000) > Math.floor(seenAtMs / 1000));
  upstream.tag(tag, newer.manifest.digest);
  await hold(asker, older);
  await hold(puller, newer);
  return { tag, older, newer };
}

async function kill(roles: readonly Role[]): Promise<void> {
  await Promise.all(roles.map((role) => puller[role].kill('SIGKILL')));
}

async function startAgain(roles: readonly Role[]): Promise<void> {
  for (const role of roles) {
    await (role === 'agent' ? puller.startAgent() : puller.startRegistry());
  }
}

/** What the puller's agent has been told that a tag names. */
async function knownDigest(tag: string): Promise<string | undefined> {
  const client = new AgentClient(
    { target: `unix:${puller.socketPath}`, windowBytes: 64 * 1024, name: 'puller' },
    { credentials: credentials.createInsecure() },
  );
  try {
    const { tags } = await client.resolve(`${registryName}/${repository}:${tag}`, {
      timeoutMs: 5000,
    });
    return tags.find(({ observedAtMs }) => observedAtMs !== undefined)?.digest;
  } finally {
    client.close();
  }
}

const stateDirectory = (): string => join(dirname(puller.configPath), 'state');
const statePath = (): string => join(stateDirectory(), 'observations.db');

async function brokenFiles(): Promise<string[]> {
  return (await readdir(stateDirectory())).filter((name) => name.includes('.broken-'));
}

function reports(): string[] {
  return puller.agent
    .lines()
    .map(({ text }) => text)
    .filter((text) => text.includes('setting them aside'));
}

/** The other node says with the registry dead what the tag names, both as agents know it. */
async function expectNamed(tag: string, image: FaultImage): Promise<void> {
  const answer = await pullTag(asker, tag);
  const said = [answer.status, answer.headers['docker-content-digest']];
  expect(said, answer.body.toString()).toEqual([200, image.manifest.digest]);
  expect(answer.body.equals(image.manifest.bytes)).toBe(true);
}

const both: readonly Role[] = ['agent', 'registry'];
const victims: readonly (readonly Role[])[] = [['agent'], ['registry'], both];

/** The moments at which processes die, and whether the newer image had been named by then. */
const moments: Readonly<
  Record<string, (moved: MovedTag, die: () => Promise<void>) => Promise<'older' | 'newer'>>
> = {
  'before the pull is confirmed': async ({ tag, newer }, die) => {
    const before = proxy.exchanges.length;
    await proxy.setMode({ kind: 'slowHead', delayMs: 2000 });
    const pulled = pullTag(puller, tag).catch(() => undefined);
    await waitFor(() => proxy.exchanges.slice(before).some(({ path }) => path.includes(tag)));
    await die();
    await proxy.setMode({ kind: 'refuse' });
    const answer = await pulled;
    expect(answer?.headers['docker-content-digest']).not.toBe(newer.manifest.digest);
    return 'older';
  },
  'right after the tag is answered': async ({ tag, newer }, die) => {
    const answer = await pullTag(puller, tag);
    await die();
    expect(answer.headers['docker-content-digest']).toBe(newer.manifest.digest);
    return 'newer';
  },
  'soon after the tag is answered': async ({ tag }, die) => {
    await pullTag(puller, tag);
    await delay(random.integer(0, 60));
    await die();
    return 'newer';
  },
  'in the middle of a blob': async ({ tag, newer }, die) => {
    await pullTag(puller, tag);
    const { digest, bytes } = newer.layer;
    const died = Promise.withResolvers<undefined>();
    proxy.killUpstreamAfterBytes(
      random.integer(1, bytes.length - 1),
      () => die().then(() => died.resolve(undefined), died.reject),
      { match: ({ path }) => path.includes(digest), after: 'rst' },
    );
    const pulled = getHash(urlOf(puller, `blobs/${digest}`)).catch(() => undefined);
    await Promise.all([died.promise, pulled]);
    return 'newer';
  },
  'during the outage': async ({ tag, newer }, die) => {
    await pullTag(puller, tag);
    await proxy.setMode({ kind: 'refuse' });
    const { digest } = newer.layer;
    const pulls = Array.from({ length: 4 }, () =>
      getHash(urlOf(puller, `blobs/${digest}`)).catch(() => undefined),
    );
    await delay(random.integer(0, 500));
    await die();
    await Promise.all(pulls);
    return 'newer';
  },
};

describe(`after kill -9 (SEED=${seed})`, () => {
  const cases = Object.keys(moments).flatMap((moment) =>
    victims.map((roles) => ({ moment, roles, who: roles.join(' and ') })),
  );

  test.each(cases)('of the $who $moment, a tag names what it named last', async (one) => {
    const { moment, roles, who } = one;
    const moved = await moveTag(`${moment} ${who}`);

    const expected = await moments[moment]!(moved, () => kill(roles));
    await proxy.setMode({ kind: 'refuse' });
    await startAgain(roles);

    await expectNamed(moved.tag, moved[expected]);
    expect(reports()).toEqual([]);
    expect(await brokenFiles()).toEqual([]);
  });

  test('of an agent that was away while the tag was answered, it is told when it is back', async () => {
    const { tag, newer } = await moveTag('away');
    await kill(['agent']);
    const answer = await pullTag(puller, tag);
    expect(answer.headers['docker-content-digest']).toBe(newer.manifest.digest);
    await proxy.setMode({ kind: 'refuse' });
    await startAgain(['agent']);
    await waitFor(async () => (await knownDigest(tag)) === newer.manifest.digest);
    await expectNamed(tag, newer);
  });

  test.each([
    { roles: ['agent'], who: 'agent' },
    { roles: both, who: 'agent and registry' },
  ] as const)(
    'of the $who during a burst of observations, none of what was answered is lost',
    async ({ roles }) => {
      const burst = await startBurst(`burst ${roles.join()}`);
      const answered = new Map<string, FaultImage>();
      const killAfter = random.integer(20, burstNames - 20);
      let killed: Promise<void> | undefined;
      const rest = [...burst];
      const worker = async (): Promise<void> => {
        for (let image = rest.shift(); image !== undefined; image = rest.shift()) {
          const answer = await pullTag(puller, image.tag).catch(() => undefined);
          if (answer?.status === 200) answered.set(image.tag, image);
          if (answered.size >= killAfter) killed ??= kill(roles);
        }
      };
      await Promise.all(Array.from({ length: 8 }, worker));
      await killed;
      await proxy.setMode({ kind: 'refuse' });
      await startAgain(roles);

      expect(answered.size).toBeGreaterThanOrEqual(roles.length === 1 ? burstNames : killAfter);
      const lost = new Map(answered);
      // What it missed it is told soon after it is back; what it had been told it knows.
      await waitFor(
        async () => {
          for (const [tag, { manifest }] of lost) {
            if ((await knownDigest(tag)) === manifest.digest) lost.delete(tag);
            else return false;
          }
          return true;
        },
        { what: 'every observation', detail: () => `SEED=${seed}, ${lost.size} are missing` },
      );
      for (const image of [...answered.values()].slice(-5)) await expectNamed(image.tag, image);
      expect(reports()).toEqual([]);
      expect(await brokenFiles()).toEqual([]);
    },
  );
});

async function startBurst(what: string): Promise<FaultImage[]> {
  const images = Array.from({ length: burstNames }, (_, index) =>
    faultImage(`${what} ${index} ${seed}`, { layerBytes: 100 }),
  );
  const older = faultImage(`${what} older ${seed}`, { layerBytes: 100 });
  for (const image of images) {
    pushTo(upstream, image);
    await hold(puller, image);
    await asker.observe(`${registryName}/${repository}:${image.tag}`, {
      digest: checkedDigest(older.manifest.digest),
      mediaType: manifestType,
      sizeBytes: older.manifest.bytes.length,
      observedAtMs: Date.now() - 60_000,
    });
  }
  await hold(asker, older);
  return images;
}

const damages: Readonly<Record<string, (path: string) => Promise<void>>> = {
  'cut off in the middle': async (path) => {
    const { length } = await readFile(path);
    await truncate(path, Math.floor(length / 2) + 100);
  },
  'cut off in its header': (path) => truncate(path, 60),
  'altered by one bit in the middle': async (path) => {
    const bytes = await readFile(path);
    const at = bytes.indexOf('sha256:') + 20;
    bytes[at] = bytes[at]! ^ 1;
    await writeFile(path, bytes);
  },
  'overwritten at its head': async (path) => {
    const bytes = await readFile(path);
    bytes.fill('garbage ', 0, 100);
    await writeFile(path, bytes);
  },
};

describe('an observation file that is', () => {
  test.each(Object.entries(damages))('%s is set aside, and all else works', async (what, harm) => {
    const { tag, newer } = await moveTag(`damage ${what}`);
    await pullTag(puller, tag);
    const before = await brokenFiles();
    await puller.agent.stop();
    // Its registry, which goes on, must not keep it from ending.
    expect(await puller.agent.exited).toEqual({ code: 0, signal: null });
    await harm(statePath());

    await puller.startAgent();
    expect(reports()).toHaveLength(1);
    expect(await brokenFiles()).toHaveLength(Math.min(before.length + 1, 3));
    const fresh = faultImage(`damage ${what} fresh ${seed}`, { layerBytes });
    pushTo(upstream, fresh);
    await hold(puller, fresh);
    await pullTag(puller, fresh.tag);
    await waitFor(async () => (await knownDigest(fresh.tag)) === fresh.manifest.digest);
    await proxy.setMode({ kind: 'refuse' });
    await expectNamed(fresh.tag, fresh);
    const layer = await getHash(urlOf(asker, `blobs/${newer.layer.digest}`));
    expect([layer.status, layer.digest]).toEqual([200, newer.layer.digest]);

    await kill(['agent']);
    await puller.startAgent();
    expect(reports()).toEqual([]);
    await expectNamed(fresh.tag, fresh);
  });
});
