import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Locator, type KeyAnswer } from '../../../src/discovery/locate.ts';
import type { Member } from '../../../src/discovery/membership.ts';
import type { LocateSummary } from '../../../src/rpc/agent-client.ts';
import type { SecondLook } from '../../../src/rpc/locate-messages.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';

/** How long one look at a connection takes that is not made, milliseconds. */
const WINDOW_MS = 250;
const WAIT_MS = 2000;
/** Within this time after it is back a member has to be found, milliseconds. */
const SOON_MS = 250;
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

const named = (name: string, address = `${name}:1`): Member => ({ name, address });

/** What a lookup came to, and how long it took. */
interface Look {
  readonly found: { readonly name: string; readonly atMs: number }[];
  summary: LocateSummary | undefined;
  tookMs: number | undefined;
}

/**
 * A cluster in which the members of `up` can be reached, at an address if the test says which, and
 * those of `ill` cannot answer though they can be reached.
 */
class Cluster {
  readonly up = new Map<string, string>();
  readonly ill = new Set<string>();
  readonly asked: string[] = [];
  members: readonly Member[];
  readonly locator: Locator;

  constructor(members: readonly Member[], options: { maxMembersAsked?: number } = {}) {
    this.members = members;
    this.locator = new Locator(
      {
        self: { name: 'me', address: '' },
        memberTimeoutMs: 800,
        maxMembersAsked: options.maxMembersAsked ?? 100,
      },
      {
        membership: { members: () => this.members },
        ask: async (member) => {
          this.asked.push(member.name);
          if (member.name === 'me' && !this.ill.has('me')) return undefined;
          if (this.ill.has(member.name) || !this.#isUp(member)) throw new Error('refused');
          return answer;
        },
        connect: async (member) => this.#connected(member),
        log: silentLogger,
      },
    );
  }

  start(name: string, address = `${name}:1`): void {
    this.up.set(name, address);
  }

  look(
    again?: SecondLook,
    signal = new AbortController().signal,
  ): { look: Look; done: Promise<void> } {
    const startedAtMs = Date.now();
    const look: Look = { found: [], summary: undefined, tookMs: undefined };
    const done = (async () => {
      for await (const event of this.locator.locate(key, { signal, again })) {
        if ('summary' in event) look.summary = event.summary;
        else look.found.push({ name: event.holder.member.name, atMs: Date.now() - startedAtMs });
      }
      look.tookMs = Date.now() - startedAtMs;
    })();
    return { look, done };
  }

  /** A lookup as all are made first, which names those that are silent. */
  async first(): Promise<readonly string[]> {
    const { look, done } = this.look();
    await vi.advanceTimersByTimeAsync(0);
    await done;
    return look.summary!.silent!;
  }

  #isUp({ name, address }: Member): boolean {
    return this.up.get(name) === address;
  }

  async #connected(member: Member): Promise<boolean> {
    for (let waitedMs = 0; waitedMs < WINDOW_MS; waitedMs += 10) {
      if (this.#isUp(member)) return true;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return false;
  }
}

describe('Locator, asked to look again', () => {
  it('asks those alone that were silent, and finds one as soon as it is back', async () => {
    const cluster = new Cluster([named('a'), named('b')]);
    cluster.start('a');
    const silent = await cluster.first();
    expect(silent).toEqual(['b']);
    cluster.asked.length = 0;
    const { look, done } = cluster.look({ nodes: silent, waitMs: WAIT_MS });
    await vi.advanceTimersByTimeAsync(700);
    expect(look.found).toEqual([]);
    cluster.start('b');
    await vi.advanceTimersByTimeAsync(SOON_MS);
    await done;
    expect(look.found.map(({ name }) => name)).toEqual(['b']);
    expect(look.summary).toEqual({ asked: 1, failed: 0, silent: [] });
    expect(cluster.asked).toEqual(['b']);
    await vi.advanceTimersByTimeAsync(WINDOW_MS);
  });

  it('asks everybody where nobody is named', async () => {
    const cluster = new Cluster([named('a'), named('b')]);
    cluster.start('a');
    const { look, done } = cluster.look({ nodes: [], waitMs: WAIT_MS });
    await vi.advanceTimersByTimeAsync(500);
    cluster.start('b');
    await vi.advanceTimersByTimeAsync(SOON_MS);
    await done;
    expect(look.found.map(({ name }) => name)).toEqual(['a', 'b']);
    expect(look.summary).toEqual({ asked: 3, failed: 0, silent: [] });
    await vi.advanceTimersByTimeAsync(WINDOW_MS);
  });

  it('ends when the time is over, and says who is still silent', async () => {
    const cluster = new Cluster([named('a')]);
    const { look, done } = cluster.look({ nodes: await cluster.first(), waitMs: WAIT_MS });
    await vi.advanceTimersByTimeAsync(WAIT_MS - 1);
    expect(look.summary).toBeUndefined();
    await vi.advanceTimersByTimeAsync(1);
    await done;
    expect(look.summary).toEqual({ asked: 1, failed: 1, silent: ['a'] });
    await vi.advanceTimersByTimeAsync(WINDOW_MS);
  });

  it('gives one that has been away for longer than a restart takes but a moment', async () => {
    const cluster = new Cluster([named('dead')]);
    const silent = await cluster.first();
    const waits: number[] = [];
    for (let round = 0; round < 10; round += 1) {
      const { look, done } = cluster.look({ nodes: silent, waitMs: WAIT_MS });
      await vi.advanceTimersByTimeAsync(WAIT_MS);
      await done;
      waits.push(look.tookMs!);
    }
    // Its silence is five seconds long after two waits and a half.
    expect(waits.slice(0, 3)).toEqual([2000, 2000, 1000]);
    expect(new Set(waits.slice(3))).toEqual(new Set([250]));
  });

  it('finds one in that moment that has come back after long', async () => {
    const cluster = new Cluster([named('a')]);
    const silent = await cluster.first();
    await vi.advanceTimersByTimeAsync(60_000);
    await cluster.first();
    cluster.start('a');
    const { look, done } = cluster.look({ nodes: silent, waitMs: WAIT_MS });
    await vi.advanceTimersByTimeAsync(SOON_MS);
    await done;
    expect(look.found.map(({ name }) => name)).toEqual(['a']);
    await vi.advanceTimersByTimeAsync(WINDOW_MS);
  });

  it('is not held up by one that is dead when another is back', async () => {
    const cluster = new Cluster([named('dead'), named('b')]);
    const silent = await cluster.first();
    const { look, done } = cluster.look({ nodes: silent, waitMs: WAIT_MS });
    await vi.advanceTimersByTimeAsync(300);
    cluster.start('b');
    await vi.advanceTimersByTimeAsync(SOON_MS);
    expect(look.found.map(({ name }) => name)).toEqual(['b']);
    await vi.advanceTimersByTimeAsync(WAIT_MS);
    await done;
  });

  it('asks one that can be reached and fails a few times a second, this node among them', async () => {
    for (const name of ['a', 'me']) {
      const cluster = new Cluster([named('a')]);
      cluster.start('a');
      cluster.ill.add(name);
      const silent = await cluster.first();
      expect(silent).toEqual([name]);
      cluster.asked.length = 0;
      const { look, done } = cluster.look({ nodes: silent, waitMs: WAIT_MS });
      await vi.advanceTimersByTimeAsync(1000);
      expect(cluster.asked.length).toBeGreaterThan(1);
      expect(cluster.asked.length).toBeLessThanOrEqual(6);
      cluster.ill.delete(name);
      await vi.advanceTimersByTimeAsync(SOON_MS);
      await done;
      expect(look.summary).toEqual({ asked: 1, failed: 0, silent: [] });
    }
  });

  it('asks a member at the address that it has come back with', async () => {
    const cluster = new Cluster([named('a')]);
    const { look, done } = cluster.look({ nodes: await cluster.first(), waitMs: WAIT_MS });
    await vi.advanceTimersByTimeAsync(300);
    cluster.members = [named('a', 'elsewhere:1')];
    cluster.start('a', 'elsewhere:1');
    await vi.advanceTimersByTimeAsync(WINDOW_MS + SOON_MS);
    await done;
    expect(look.found.map(({ name }) => name)).toEqual(['a']);
    await vi.advanceTimersByTimeAsync(WINDOW_MS);
  });

  it('asks members that join meanwhile, too', async () => {
    const cluster = new Cluster([named('a')]);
    const { look, done } = cluster.look({ nodes: await cluster.first(), waitMs: WAIT_MS });
    await vi.advanceTimersByTimeAsync(300);
    cluster.members = [named('a'), named('new')];
    cluster.start('new');
    await vi.advanceTimersByTimeAsync(SOON_MS);
    expect(look.found.map(({ name }) => name)).toEqual(['new']);
    await vi.advanceTimersByTimeAsync(WAIT_MS);
    await done;
    expect(look.summary).toEqual({ asked: 2, failed: 1, silent: ['a'] });
    await vi.advanceTimersByTimeAsync(WINDOW_MS);
  });

  it('asks no more members at once than it may, and ends in time all the same', async () => {
    const members = Array.from({ length: 25 }, (_, n) => named(`n${n}`));
    const cluster = new Cluster(members, { maxMembersAsked: 4 });
    const { look, done } = cluster.look({ nodes: await cluster.first(), waitMs: WAIT_MS });
    await vi.advanceTimersByTimeAsync(WAIT_MS);
    await done;
    expect(look.summary).toMatchObject({ asked: 25, failed: 25 });
    await vi.advanceTimersByTimeAsync(WINDOW_MS);
  });

  it('stops when nobody listens any more', async () => {
    const cluster = new Cluster([named('a')]);
    const stop = new AbortController();
    const silent = await cluster.first();
    const { done } = cluster.look({ nodes: silent, waitMs: WAIT_MS }, stop.signal);
    await vi.advanceTimersByTimeAsync(100);
    stop.abort();
    await vi.advanceTimersByTimeAsync(0);
    await done;
    await vi.advanceTimersByTimeAsync(WINDOW_MS);
  });
});
