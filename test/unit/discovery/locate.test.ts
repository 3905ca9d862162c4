import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { loadConfig } from '../../../src/config/load.ts';
import {
  Locator,
  type AskMember,
  type KeyAnswer,
  type KeyHolder,
} from '../../../src/discovery/locate.ts';
import type { Member } from '../../../src/discovery/membership.ts';
import type { LocateSummary } from '../../../src/rpc/agent-client.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';

const TIMEOUT_MS = 1000;
const self: Member = { name: 'me', address: '' };
const key = { name: 'registry.test/a:1' };
const answer: KeyAnswer = {
  sizeBytes: 5,
  verified: true,
  busy: false,
  tags: [],
  registrySeen: false,
};

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

const never = new Promise<never>(() => undefined);

/** A cluster whose members answer as a test says: by name, after a while. */
class Cluster {
  readonly asked: string[] = [];
  readonly aborted: string[] = [];
  running = 0;
  maxRunning = 0;
  readonly locator: Locator;
  readonly #answers: Readonly<Record<string, () => Promise<KeyAnswer | undefined>>>;

  constructor(
    answers: Readonly<Record<string, () => Promise<KeyAnswer | undefined>>>,
    options: { members?: readonly string[]; maxMembersAsked?: number } = {},
  ) {
    this.#answers = answers;
    const members = (options.members ?? Object.keys(answers)).map((name) => ({
      name,
      address: `${name}:1`,
    }));
    this.locator = new Locator(
      { self, memberTimeoutMs: TIMEOUT_MS, maxMembersAsked: options.maxMembersAsked ?? 10 },
      {
        membership: { members: () => members },
        ask: this.#ask,
        connect: async () => true,
        log: silentLogger,
      },
    );
  }

  readonly #ask: AskMember = async ({ name }, _key, { signal }) => {
    this.asked.push(name);
    this.running += 1;
    this.maxRunning = Math.max(this.maxRunning, this.running);
    signal.addEventListener('abort', () => this.aborted.push(name));
    try {
      return await (this.#answers[name] ?? (async () => undefined))();
    } finally {
      this.running -= 1;
    }
  };
}

const after = (ms: number, value?: KeyAnswer) => async (): Promise<KeyAnswer | undefined> => {
  await new Promise((resolve) => setTimeout(resolve, ms));
  return value;
};

interface Result {
  readonly holders: KeyHolder[];
  summary: LocateSummary | undefined;
}

function collect(cluster: Cluster, signal = new AbortController().signal) {
  const result: Result = { holders: [], summary: undefined };
  const done = (async () => {
    for await (const event of cluster.locator.locate(key, { signal })) {
      if ('holder' in event) result.holders.push(event.holder);
      else result.summary = event.summary;
    }
  })();
  return { result, done };
}

const namesIn = ({ holders }: Result): string[] => holders.map(({ member }) => member.name);

describe('Locator', () => {
  it('Locator asks the members that there are when a lookup begins', async () => {
    let members = [{ name: 'a', address: 'a:1' }];
    const asked: string[] = [];
    const locator = new Locator(
      { self, memberTimeoutMs: TIMEOUT_MS, maxMembersAsked: 10 },
      {
        membership: { members: () => members },
        ask: async ({ name }) => void asked.push(name),
        connect: async () => true,
        log: silentLogger,
      },
    );
    const lookUp = async (): Promise<void> => {
      const { signal } = new AbortController();
      for await (const event of locator.locate(key, { signal }))
        expect(event).toHaveProperty('summary');
    };
    await lookUp();
    members = [{ name: 'b', address: 'b:1' }];
    await lookUp();
    expect(asked).toEqual(['me', 'a', 'me', 'b']);
  });

  it.each([
    ['z1', ['me', 'a', 'b', 'c'], ['b']],
    [undefined, ['me', 'a', 'b', 'c'], []],
  ])('Locator says who is in another zone than %s', async (zone, all, far) => {
    const members = [
      { name: 'a', address: 'a:1', zone: 'z1' },
      { name: 'b', address: 'b:1', zone: 'z2' },
      { name: 'c', address: 'c:1' },
    ];
    const locator = new Locator(
      { self, memberTimeoutMs: TIMEOUT_MS, maxMembersAsked: 10 },
      {
        membership: { members: () => members, zone },
        ask: async () => answer,
        connect: async () => true,
        log: silentLogger,
      },
    );
    const holders: KeyHolder[] = [];
    for await (const event of locator.locate(key, { signal: new AbortController().signal })) {
      if ('holder' in event) holders.push(event.holder);
    }
    expect(holders.map(({ member }) => member.name)).toEqual(all);
    expect(holders.filter((one) => one.far).map(({ member }) => member.name)).toEqual(far);
  });

  it('Locator gives holders in the order in which they answer, then the summary', async () => {
    const cluster = new Cluster({
      me: after(30, answer),
      slow: after(50, answer),
      quick: after(10, answer),
      empty: after(5),
    });
    const { result, done } = collect(cluster);
    await vi.advanceTimersByTimeAsync(10);
    expect(namesIn(result)).toEqual(['quick']);
    expect(result.summary).toBeUndefined();
    await vi.advanceTimersByTimeAsync(40);
    await done;
    expect(namesIn(result)).toEqual(['quick', 'me', 'slow']);
    expect(result.holders[0]).toEqual({
      ...answer,
      far: false,
      member: { name: 'quick', address: 'quick:1' },
    });
    expect(result.summary).toEqual({ asked: 4, failed: 0, silent: [] });
  });

  it('Locator asks this node once, member of its own list or not', async () => {
    for (const members of [['me', 'a'], ['a']]) {
      const cluster = new Cluster({ me: async () => answer }, { members });
      const { result, done } = collect(cluster);
      await vi.advanceTimersByTimeAsync(0);
      await done;
      expect(cluster.asked).toEqual(['me', 'a']);
      expect(result.holders.map(({ member }) => member)).toEqual([self]);
    }
  });

  it('Locator counts members that fail or throw, and goes on', async () => {
    const cluster = new Cluster({
      a: () => Promise.reject(new Error('refused')),
      b: () => {
        throw new Error('a bug');
      },
      c: async () => answer,
    });
    const { result, done } = collect(cluster);
    await vi.advanceTimersByTimeAsync(0);
    await done;
    expect(namesIn(result)).toEqual(['c']);
    const { silent, ...counts } = result.summary!;
    expect(counts).toEqual({ asked: 4, failed: 2 });
    expect(new Set(silent)).toEqual(new Set(['a', 'b']));
  });

  it('Locator waits for a dead member no longer than its time, and for no other meanwhile', async () => {
    const cluster = new Cluster({ dead: () => never, quick: async () => answer });
    const { result, done } = collect(cluster);
    await vi.advanceTimersByTimeAsync(0);
    expect(namesIn(result)).toEqual(['quick']);
    await vi.advanceTimersByTimeAsync(TIMEOUT_MS - 1);
    expect(result.summary).toBeUndefined();
    await vi.advanceTimersByTimeAsync(1);
    await done;
    expect(result.summary).toEqual({ asked: 3, failed: 1, silent: ['dead'] });
  });

  it('Locator waits less for a member that has been dead before, and trusts it again', async () => {
    let isDead = true;
    const cluster = new Cluster({ dead: async () => (isDead ? never : answer) });
    const waits: number[] = [];
    for (let round = 0; round < 3; round += 1) {
      const startMs = Date.now();
      const { result, done } = collect(cluster);
      await vi.advanceTimersToNextTimerAsync();
      await done;
      expect(result.summary?.failed).toBe(1);
      waits.push(Date.now() - startMs);
    }
    expect(waits).toEqual([TIMEOUT_MS, TIMEOUT_MS, TIMEOUT_MS / 4]);
    isDead = false;
    const { result, done } = collect(cluster);
    await vi.advanceTimersByTimeAsync(0);
    await done;
    expect(namesIn(result)).toEqual(['dead']);
  });

  it('Locator waits for its own store no longer than for others', async () => {
    const cluster = new Cluster({ me: () => never, a: async () => answer });
    const { result, done } = collect(cluster);
    await vi.advanceTimersByTimeAsync(TIMEOUT_MS);
    await done;
    expect(result.summary).toEqual({ asked: 2, failed: 1, silent: ['me'] });
  });

  it('Locator asks no more members at once than it may, and all of them in the end', async () => {
    const names = Array.from({ length: 25 }, (_, n) => `n${n}`);
    const answers = Object.fromEntries(names.map((name) => [name, after(10, answer)]));
    const cluster = new Cluster(answers, { maxMembersAsked: 4 });
    const { result, done } = collect(cluster);
    await vi.advanceTimersByTimeAsync(1000);
    await done;
    expect(cluster.maxRunning).toBe(4);
    expect(new Set(namesIn(result))).toEqual(new Set(names));
    expect(result.summary).toEqual({ asked: 26, failed: 0, silent: [] });
  });

  it('Locator lets go of the others when its reader leaves early', async () => {
    const cluster = new Cluster({
      quick: async () => answer,
      slow: () => never,
      slower: () => never,
    });
    const search = cluster.locator.locate(key, { signal: new AbortController().signal });
    expect(await search.next()).toMatchObject({ value: { holder: { member: { name: 'quick' } } } });
    await search.return(undefined);
    await vi.advanceTimersByTimeAsync(0);
    expect(cluster.aborted).toEqual(expect.arrayContaining(['slow', 'slower']));
    expect(vi.getTimerCount()).toBe(0);
  });

  it('Locator stops asking when the signal aborts', async () => {
    const names = Array.from({ length: 25 }, (_, n) => `n${n}`);
    const cluster = new Cluster(Object.fromEntries(names.map((name) => [name, () => never])), {
      maxMembersAsked: 4,
    });
    const stop = new AbortController();
    const { done } = collect(cluster, stop.signal);
    await vi.advanceTimersByTimeAsync(10);
    stop.abort();
    await vi.advanceTimersByTimeAsync(0);
    await done;
    // This node has answered; four others were under way.
    expect(cluster.asked.length).toBe(5);
    expect(cluster.aborted).toEqual(expect.arrayContaining(['n0', 'n1', 'n2', 'n3']));
  });

  it('Locator does not suspect members whose reader has left', async () => {
    const cluster = new Cluster({ slow: () => never });
    for (let round = 0; round < 5; round += 1) {
      const stop = new AbortController();
      const { done } = collect(cluster, stop.signal);
      await vi.advanceTimersByTimeAsync(1);
      stop.abort();
      await vi.advanceTimersByTimeAsync(0);
      await done;
    }
    const startMs = Date.now();
    const { done } = collect(cluster);
    await vi.advanceTimersToNextTimerAsync();
    await done;
    expect(Date.now() - startMs).toBe(TIMEOUT_MS);
  });

  it('Locator asks two hundred members in the time of one, a hundred dead ones among them', async () => {
    const names = Array.from({ length: 200 }, (_, n) => `n${n}`);
    const isDead = (n: number): boolean => n < 100;
    const answers = Object.fromEntries(
      names.map((name, n) => [name, isDead(n) ? () => never : after(10, answer)]),
    );
    // As it is set by default.
    const { maxMembersAsked } = (await loadConfig()).agent.limits;
    const cluster = new Cluster(answers, { maxMembersAsked });
    const { result, done } = collect(cluster);
    await vi.advanceTimersByTimeAsync(10);
    expect(new Set(namesIn(result))).toEqual(new Set(names.filter((_, n) => !isDead(n))));
    await vi.advanceTimersByTimeAsync(TIMEOUT_MS - 10);
    await done;
    expect(result.summary).toMatchObject({ asked: 201, failed: 100 });
  });

  it('Locator asks members that failed lately after all others', async () => {
    let isDead = true;
    const names = Array.from({ length: 20 }, (_, n) => `n${n}`);
    const sick = names.slice(0, 8);
    const answers = Object.fromEntries(
      names.map((name) => [
        name,
        async () => (isDead && sick.includes(name) ? never : Promise.resolve(answer)),
      ]),
    );
    const cluster = new Cluster(answers, { maxMembersAsked: 4 });
    for (let round = 0; round < 2; round += 1) {
      const { done } = collect(cluster);
      await vi.advanceTimersByTimeAsync(4 * TIMEOUT_MS);
      await done;
    }
    cluster.asked.length = 0;
    const { result, done } = collect(cluster);
    await vi.advanceTimersByTimeAsync(0);
    expect(namesIn(result)).toEqual(names.slice(8));
    isDead = false;
    await vi.advanceTimersByTimeAsync(TIMEOUT_MS);
    await done;
    expect(cluster.asked.slice(0, 13)).toEqual(['me', ...names.slice(8)]);
    expect(new Set(cluster.asked)).toEqual(new Set(['me', ...names]));
  });
});
