import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { digestOf } from '../../../src/oci/digest.ts';
import type { Answer } from '../../../src/registry/answer.ts';
import type { PullRequest } from '../../../src/registry/pull-request.ts';
import * as blobs from './blob-pull-scene.ts';
import { FakeUpstream, plentyOfBytes, pullRequest, type FakeAgent } from './fake-sources.ts';
import * as manifests from './manifest-pull-scene.ts';
import { responseOf } from './upstream/fake-response.ts';

/** Until an answer in an outage, in both scenes; milliseconds. */
const BUDGET_MS = 1000;
const WAIT_MS = 900;
const { budgets, proven } = manifests;
const tags = [manifests.confirmed(manifests.bytes)];

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

/** The work of event loop turns, which no fake timer stands for, comes before and after the time. */
async function pass(ms: number): Promise<void> {
  await turn();
  await vi.advanceTimersByTimeAsync(ms);
  await turn();
}

/** One node that has all that is wanted, and is away. */
interface Scene {
  readonly agent: FakeAgent;
  readonly ask: (request: PullRequest) => Promise<Answer>;
}

function manifestScene(reference: 'tag' | 'digest'): Scene {
  const { agent, pull } = manifests.scene([manifests.bytes, manifests.config], plentyOfBytes(), {
    n0: tags,
  });
  const which = reference === 'tag' ? manifests.byTag : manifests.byDigest;
  return { agent, ask: (request) => pull.answer(request, which) };
}

function blobScene(): Scene {
  const { agent, pull } = blobs.scene([{ node: 'n0', bytes: blobs.small }]);
  return { agent, ask: (request) => pull.answer(request, digestOf(blobs.small)) };
}

const scenes = {
  'a manifest by tag': { start: () => manifestScene('tag'), method: 'GET' },
  'a manifest by digest': { start: () => manifestScene('digest'), method: 'GET' },
  'a blob': { start: blobScene, method: 'GET' },
  'the size of a blob': { start: blobScene, method: 'HEAD' },
} as const;
const kinds = Object.keys(scenes) as (keyof typeof scenes)[];
const nodes = ['n0', 'n1'];

function away(kind: keyof typeof scenes) {
  const { method, start } = scenes[kind];
  const scene = start();
  for (const node of nodes) scene.agent.away.add(node);
  return {
    ...scene,
    comeBack: () => nodes.forEach((node) => scene.agent.comeBack(node)),
    /** The answer once it is there, and when that was. */
    pull: (upstream: FakeUpstream, policy: PullRequest['policy'] | object = {}) => {
      const startedAtMs = Date.now();
      const pulled: { answer?: Answer; tookMs?: number } = {};
      void scene.ask(pullRequest(upstream, { method, policy })).then((answer) => {
        pulled.answer = answer;
        pulled.tookMs = Date.now() - startedAtMs;
      });
      return pulled;
    },
  };
}

/** In an outage that is known, where it refuses whatever is asked. */
function dead(afterMs = 0): FakeUpstream {
  const upstream = new FakeUpstream(async () => {
    if (afterMs > 0) await new Promise((resolve) => setTimeout(resolve, afterMs));
    throw proven;
  });
  upstream.outage = { sinceMs: Date.now(), cause: proven, savedRequests: 0 };
  return upstream;
}

const missingAfter = (ms: number): FakeUpstream =>
  new FakeUpstream(async () => {
    await new Promise((resolve) => setTimeout(resolve, ms));
    return responseOf({ status: 404, headers: {}, body: Buffer.from('{}') });
  });

describe.each(kinds)('a pull of %s', (kind) => {
  it('waits in an outage for nodes that gave no answer, and no longer than they are away', async () => {
    const { agent, comeBack, pull } = away(kind);
    const pulled = pull(dead());
    await pass(600);
    expect(pulled.answer).toBeUndefined();
    comeBack();
    await pass(300);
    expect(pulled.answer?.status).toBe(200);
    expect(pulled.answer?.headers['salvor-source']).toMatch(/^node\//);
    for (const { nodes: asked } of agent.secondLooks) expect(asked).not.toContain('me');
  });

  it('waits for them when the upstream fails for the first time, too', async () => {
    const { comeBack, pull } = away(kind);
    const upstream = dead(300);
    upstream.outage = undefined;
    const pulled = pull(upstream);
    await pass(600);
    expect(pulled.answer).toBeUndefined();
    comeBack();
    await pass(300);
    expect(pulled.answer?.status).toBe(200);
  });

  it('is answered in time when they do not come back', async () => {
    const { pull } = away(kind);
    const pulled = pull(dead());
    await pass(WAIT_MS - 1);
    expect(pulled.answer).toBeUndefined();
    await pass(1);
    expect(pulled.answer?.status).toBe(503);
  });

  it('waits but a moment when the upstream has taken all the time', async () => {
    const { pull } = away(kind);
    const slow = dead(3000);
    slow.outage = undefined;
    const pulled = pull(slow);
    await pass(3000);
    expect(pulled.answer).toBeUndefined();
    await pass(250);
    expect(pulled.answer?.status).toBe(503);
  });

  it('waits for nobody when all nodes say no', async () => {
    const { agent, comeBack, ask } = away(kind);
    comeBack();
    const { method } = scenes[kind];
    const other = pullRequest(dead(), { method });
    // Nobody has what another name, or digest, stands for.
    agent.hasNothing = true;
    const answer = ask(other);
    await pass(0);
    expect((await answer).status).toBe(503);
    expect(agent.secondLooks).toEqual([]);
  });

  it('does not hold back the word of an upstream that lacks it', async () => {
    const { agent, pull } = away(kind);
    const pulled = pull(missingAfter(100));
    await pass(100);
    expect(pulled.answer?.status).toBe(404);
    expect(agent.secondLooks).toEqual([]);
  });

  it('does not hold back an upstream that is well, where nodes are asked first', async () => {
    const { pull } = away(kind);
    const upstream = missingAfter(100);
    const pulled = pull(upstream, { peers: 'prefer' });
    await pass(100);
    expect(upstream.asked).toHaveLength(1);
    expect(pulled.answer?.status).toBe(404);
  });

  it('takes the answer of an upstream that is back before the nodes', async () => {
    const { pull } = away(kind);
    const upstream = missingAfter(400);
    upstream.outage = { sinceMs: Date.now(), cause: proven, savedRequests: 0 };
    const pulled = pull(upstream);
    await pass(400);
    expect(pulled.answer?.status).toBe(404);
  });

  it('waits together with five hundred others', async () => {
    const { agent, comeBack, pull } = away(kind);
    const upstream = dead();
    const pulls = Array.from({ length: 500 }, () => pull(upstream));
    await pass(500);
    const late = pull(upstream);
    await pass(0);
    // All share one; who comes in the middle has more time left than it has.
    expect(agent.secondLooks.length).toBeLessThanOrEqual(2);
    comeBack();
    await pass(300);
    expect(new Set([...pulls, late].map(({ answer }) => answer?.status))).toEqual(new Set([200]));
    // The manifest and the config of a tag are further questions.
    expect(agent.lookups.length).toBeLessThan(12);
  });
});

describe('a pull by tag', () => {
  it('lets nodes that come back together say what they know, and takes the newest', async () => {
    const older = manifests.confirmed(
      manifests.bytes,
      manifests.mediaType,
      manifests.NOW_MS - 9000,
    );
    const newer = manifests.confirmed(manifests.index, manifests.indexType);
    const { agent, pull } = manifests.scene(manifests.everything, plentyOfBytes(), {
      n0: [newer],
      n1: [older],
    });
    for (const node of ['n0', 'n1', 'n2']) agent.away.add(node);
    const answer = pull.answer(pullRequest(dead()), manifests.byTag);
    await pass(200);
    agent.comeBack('n1');
    await pass(100);
    for (const node of ['n0', 'n2']) agent.comeBack(node);
    await pass(BUDGET_MS);
    expect((await answer).headers['docker-content-digest']).toBe(newer.digest);
  });

  it('does not wait where nodes are not to be asked about tags', async () => {
    const { agent, pull } = manifests.scene([manifests.bytes], plentyOfBytes(), { n0: tags });
    agent.away.add('n0');
    const answer = pull.answer(pullRequest(dead(), { policy: { staleOn: [] } }), manifests.byTag);
    await pass(0);
    expect((await answer).status).toBe(503);
    expect(agent.secondLooks).toEqual([]);
  });
});

describe('a pull of a blob', () => {
  it('goes on from another node that came back, when the first that did breaks off', async () => {
    const { agent, pull } = blobs.scene([
      { node: 'n0', bytes: blobs.big, breaksAfter: 1_000_000 },
      { node: 'n1', bytes: blobs.big },
    ]);
    for (const node of nodes) agent.away.add(node);
    const answer = pull.answer(pullRequest(dead()), digestOf(blobs.big));
    await pass(100);
    for (const node of nodes) agent.comeBack(node);
    await pass(100);
    const got = blobs.read(await answer);
    // Whoever is still away is not waited for in the middle of a body.
    await pass(WAIT_MS);
    expect(agent.reads).toHaveLength(2);
    expect((await got).bytes.equals(blobs.big)).toBe(true);
  });
});

it('the budget of both scenes is the same', () => {
  expect(budgets.outageAnswerMs).toBe(BUDGET_MS);
});
