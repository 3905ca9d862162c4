import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { HolderSearch } from '../../../../src/registry/sources/holder-search.ts';
import type { LocatedHolder } from '../../../../src/rpc/agent-client.ts';
import { AgentError } from '../../../../src/rpc/agent-error.ts';
import type { SecondLook } from '../../../../src/rpc/locate-messages.ts';
import { Silence } from '../../../../src/rpc/silence.ts';
import { silentLogger } from '../../../../src/telemetry/logger.ts';

const WAIT_MS = 2000;
const key = { name: 'registry.test/a:1' };
const holder: LocatedHolder = {
  node: 'a',
  address: 'a.test:1',
  sizeBytes: 1,
  verified: true,
  busy: false,
  tags: [],
  registrySeen: true,
  far: false,
};

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

/** The agent of this node, which the test starts and stops. */
class OwnAgent {
  isUp = false;
  /** It can be reached, and gives up in the middle of its answer. */
  isIll = false;
  readonly silence = new Silence();
  readonly looks: (SecondLook | undefined)[] = [];

  search(again?: SecondLook): HolderSearch {
    const { signal } = new AbortController();
    const options = again === undefined ? { timeoutMs: 1000, signal } : { again, signal };
    return new HolderSearch(key, options, {
      agent: {
        connect: async () => this.#connected(),
        locate: (_, limits) => this.#locate(limits.again),
      },
      ownSilence: this.silence,
      log: silentLogger,
    });
  }

  async #connected(): Promise<boolean> {
    for (let waitedMs = 0; waitedMs < 250; waitedMs += 10) {
      if (this.isUp) return true;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return false;
  }

  async *#locate(again: SecondLook | undefined) {
    this.looks.push(again);
    if (!this.isUp || this.isIll) throw new AgentError('unavailable', 'refused');
    yield { holder };
    yield { summary: { asked: 2, failed: 0, silent: [] } };
  }
}

async function timed(search: HolderSearch): Promise<{ nodes: string[]; tookMs: number }> {
  const startedAtMs = Date.now();
  const holders = search.all();
  const tookMs = holders.then(() => Date.now() - startedAtMs);
  await vi.advanceTimersByTimeAsync(WAIT_MS + 250);
  return { nodes: (await holders).map(({ node }) => node), tookMs: await tookMs };
}

describe('HolderSearch, with an own agent that gives no answer', () => {
  it('would have everybody asked again, since nobody was', async () => {
    const agent = new OwnAgent();
    const search = agent.search();
    await search.all();
    expect(search.silent).toEqual([]);
    expect(search.summary).toEqual({ asked: 0, failed: 0 });
  });

  it('asks as soon as it is back, with the time that is left', async () => {
    const agent = new OwnAgent();
    const search = agent.search({ nodes: [], waitMs: WAIT_MS });
    await vi.advanceTimersByTimeAsync(600);
    expect(agent.looks).toEqual([]);
    agent.isUp = true;
    await vi.advanceTimersByTimeAsync(10);
    expect((await search.all()).map(({ node }) => node)).toEqual(['a']);
    expect(search.silent).toBeUndefined();
    expect(agent.looks).toHaveLength(1);
    expect(agent.looks[0]!.waitMs).toBeLessThanOrEqual(WAIT_MS - 600);
    await vi.advanceTimersByTimeAsync(250);
  });

  it('asks one that fails a few times a second', async () => {
    const agent = new OwnAgent();
    agent.isUp = true;
    agent.isIll = true;
    const search = agent.search({ nodes: ['a'], waitMs: WAIT_MS });
    await vi.advanceTimersByTimeAsync(1000);
    expect(agent.looks.length).toBeGreaterThan(1);
    expect(agent.looks.length).toBeLessThanOrEqual(6);
    agent.isIll = false;
    await vi.advanceTimersByTimeAsync(250);
    expect(await search.all()).toHaveLength(1);
    expect(agent.looks.at(-1)!.nodes).toEqual(['a']);
  });

  it('gives up when the time is over', async () => {
    const agent = new OwnAgent();
    const { nodes, tookMs } = await timed(agent.search({ nodes: [], waitMs: WAIT_MS }));
    expect(nodes).toEqual([]);
    expect(tookMs).toBe(WAIT_MS);
  });

  it('waits but a moment for one that has been away for long', async () => {
    const agent = new OwnAgent();
    await agent.search().all();
    await vi.advanceTimersByTimeAsync(10_000);
    await agent.search().all();
    const { tookMs } = await timed(agent.search({ nodes: [], waitMs: WAIT_MS }));
    expect(tookMs).toBe(250);
  });

  it('waits for one that has answered since', async () => {
    const agent = new OwnAgent();
    await agent.search().all();
    agent.isUp = true;
    await agent.search().all();
    await vi.advanceTimersByTimeAsync(10_000);
    agent.isUp = false;
    const { tookMs } = await timed(agent.search({ nodes: [], waitMs: WAIT_MS }));
    expect(tookMs).toBe(WAIT_MS);
  });
});
