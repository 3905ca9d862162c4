import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BusyError } from '../../../src/registry/byte-budget.ts';
import { hedge, type Hedged, type HedgeOptions } from '../../../src/registry/hedge.ts';
import { Patience } from '../../../src/registry/patience.ts';

const HEDGE_MS = 400;

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

/** One hedged question whose two sides a test answers by hand. */
class Scene {
  readonly upstream = Promise.withResolvers<string>();
  readonly peers = Promise.withResolvers<string | undefined>();
  readonly discarded: string[] = [];
  readonly started: string[] = [];
  readonly aborted: string[] = [];
  readonly client = new AbortController();
  readonly result: Promise<Hedged<string, string>>;
  trouble = (): void => undefined;
  settled = false;

  constructor(options: Partial<HedgeOptions<string, string>> = {}) {
    this.result = hedge<string, string>({
      signal: this.client.signal,
      first: 'upstream',
      hedgeMs: HEDGE_MS,
      upstream: (signal, trouble) => {
        this.started.push('upstream');
        this.trouble = trouble;
        signal.addEventListener('abort', () => this.aborted.push('upstream'));
        return this.upstream.promise;
      },
      peers: (signal) => {
        this.started.push('peers');
        signal.addEventListener('abort', () => this.aborted.push('peers'));
        return this.peers.promise;
      },
      isFinal: (value) => value !== 'missing',
      discardUpstream: (value) => this.discarded.push(value),
      discardPeers: (value) => this.discarded.push(value),
      ...options,
    });
    void this.result.then(
      () => (this.settled = true),
      () => (this.settled = true),
    );
  }
}

function patient(): Patience {
  const trace = { elapsedMs: () => 0, begin: () => () => undefined };
  return new Patience({ budgetMs: 2000 }, { trace });
}

const turn = async (ms = 0): Promise<void> => {
  await vi.advanceTimersByTimeAsync(ms);
};

describe('hedge', () => {
  it('hedge takes the upstream alone when it answers at once', async () => {
    const scene = new Scene();
    scene.upstream.resolve('U');
    expect(await scene.result).toEqual({ from: 'upstream', value: 'U' });
    await turn(HEDGE_MS * 2);
    expect(scene.started).toEqual(['upstream']);
    expect(scene.discarded).toEqual([]);
  });

  it('hedge starts the nodes when the upstream has been silent for the hedge time', async () => {
    const scene = new Scene();
    await turn(HEDGE_MS - 1);
    expect(scene.started).toEqual(['upstream']);
    await turn(1);
    expect(scene.started).toEqual(['upstream', 'peers']);
    scene.peers.resolve('P');
    expect(await scene.result).toEqual({ from: 'peers', value: 'P' });
    expect(scene.aborted).toEqual(['upstream']);
  });

  it('hedge starts the nodes at the first sign of trouble', async () => {
    const scene = new Scene();
    await turn(5);
    scene.trouble();
    await turn();
    expect(scene.started).toEqual(['upstream', 'peers']);
    scene.peers.resolve('P');
    expect(await scene.result).toEqual({ from: 'peers', value: 'P' });
  });

  it('hedge starts the nodes as soon as the upstream has failed', async () => {
    const scene = new Scene();
    scene.upstream.reject(new Error('refused'));
    await turn();
    expect(scene.started).toEqual(['upstream', 'peers']);
    scene.peers.resolve('P');
    expect(await scene.result).toEqual({ from: 'peers', value: 'P' });
  });

  it('hedge waits for the upstream when no node can help', async () => {
    const scene = new Scene();
    await turn(HEDGE_MS);
    scene.peers.resolve(undefined);
    await turn(20_000);
    expect(scene.settled).toBe(false);
    scene.upstream.resolve('U');
    expect(await scene.result).toEqual({ from: 'upstream', value: 'U' });
    expect(scene.aborted).toEqual([]);
  });

  it('hedge waits for the upstream when the nodes fail', async () => {
    const scene = new Scene();
    await turn(HEDGE_MS);
    scene.peers.reject(new Error('broken'));
    await turn();
    scene.upstream.resolve('U');
    expect(await scene.result).toEqual({ from: 'upstream', value: 'U' });
  });

  it('hedge names the failure of the upstream when nobody can help', async () => {
    const failure = new Error('refused');
    for (const order of [0, 1]) {
      const scene = new Scene();
      await turn(HEDGE_MS);
      const steps = [() => scene.upstream.reject(failure), () => scene.peers.resolve(undefined)];
      steps[order]!();
      await turn();
      expect(scene.settled).toBe(false);
      steps[1 - order]!();
      expect(await scene.result).toEqual({ from: 'nobody', upstream: { error: failure } });
    }
  });

  it('hedge asks the nodes when the upstream says "missing", and keeps its word otherwise', async () => {
    const found = new Scene();
    found.upstream.resolve('missing');
    await turn();
    expect(found.started).toEqual(['upstream', 'peers']);
    found.peers.resolve('P');
    expect(await found.result).toEqual({ from: 'peers', value: 'P' });
    expect(found.discarded).toEqual(['missing']);

    const absent = new Scene();
    await turn(HEDGE_MS);
    absent.peers.resolve(undefined);
    await turn();
    absent.upstream.resolve('missing');
    expect(await absent.result).toEqual({ from: 'nobody', upstream: { value: 'missing' } });
    expect(absent.discarded).toEqual([]);
  });

  it('hedge discards a node that comes too late', async () => {
    const scene = new Scene();
    await turn(HEDGE_MS);
    scene.upstream.resolve('U');
    expect(await scene.result).toEqual({ from: 'upstream', value: 'U' });
    expect(scene.aborted).toEqual(['peers']);
    scene.peers.resolve('P');
    await turn();
    expect(scene.discarded).toEqual(['P']);
  });

  it('hedge discards an upstream that comes too late', async () => {
    const scene = new Scene();
    await turn(HEDGE_MS);
    scene.peers.resolve('P');
    await scene.result;
    scene.upstream.resolve('U');
    await turn();
    expect(scene.discarded).toEqual(['U']);
  });

  it('hedge takes one and discards the other when both come at the same moment', async () => {
    for (const order of [0, 1]) {
      const scene = new Scene();
      await turn(HEDGE_MS);
      const steps = [() => scene.upstream.resolve('U'), () => scene.peers.resolve('P')];
      steps[order]!();
      steps[1 - order]!();
      const { from } = await scene.result;
      await turn();
      expect(scene.discarded).toEqual([from === 'upstream' ? 'P' : 'U']);
    }
  });

  it('hedge keeps a late failure of the loser to itself', async () => {
    const scene = new Scene();
    await turn(HEDGE_MS);
    scene.peers.resolve('P');
    await scene.result;
    scene.upstream.reject(new Error('aborted'));
    await turn();
    expect(scene.discarded).toEqual([]);
  });

  it('hedge asks the nodes first where that is wanted, and the upstream when they cannot', async () => {
    const won = new Scene({ first: 'peers' });
    await turn();
    expect(won.started).toEqual(['peers']);
    won.peers.resolve('P');
    expect(await won.result).toEqual({ from: 'peers', value: 'P' });
    await turn(HEDGE_MS * 2);
    expect(won.started).toEqual(['peers']);

    const lost = new Scene({ first: 'peers' });
    lost.peers.resolve(undefined);
    await turn();
    expect(lost.started).toEqual(['peers', 'upstream']);
    lost.upstream.resolve('U');
    expect(await lost.result).toEqual({ from: 'upstream', value: 'U' });
  });

  it('hedge starts the upstream beside silent nodes after the hedge time', async () => {
    const scene = new Scene({ first: 'peers' });
    await turn(HEDGE_MS);
    expect(scene.started).toEqual(['peers', 'upstream']);
    scene.upstream.resolve('U');
    expect(await scene.result).toEqual({ from: 'upstream', value: 'U' });
    expect(scene.aborted).toEqual(['peers']);
  });

  it.each(['upstream', 'peers'] as const)(
    'hedge ends at once when there is no memory for what %s would send',
    async (side) => {
      const scene = new Scene();
      await turn(HEDGE_MS);
      scene[side].reject(new BusyError('full'));
      await expect(scene.result).rejects.toThrow(BusyError);
      expect(scene.aborted.toSorted()).toEqual(['peers', 'upstream']);
      const other = side === 'upstream' ? scene.peers : scene.upstream;
      other.resolve('late');
      await turn();
      expect(scene.discarded).toEqual(['late']);
    },
  );

  it('hedge ends when the side that stood in has no memory either', async () => {
    const scene = new Scene();
    scene.upstream.reject(new Error('down'));
    await turn();
    scene.peers.reject(new BusyError('full'));
    await expect(scene.result).rejects.toThrow(BusyError);
  });

  it('hedge asks the upstream as soon as somebody would wait for nodes, and its trouble lets them', async () => {
    const patience = patient();
    const scene = new Scene({ first: 'peers', patience });
    await turn(HEDGE_MS - 1);
    expect(scene.started).toEqual(['peers']);
    const left = patience.leftMs();
    await turn();
    expect(scene.started).toEqual(['peers', 'upstream']);
    scene.trouble();
    expect(await left).toBeGreaterThan(0);
    scene.upstream.resolve('missing');
    await turn();
    expect(await patience.leftMs()).toBe(0);
    scene.peers.resolve('P');
    expect(await scene.result).toEqual({ from: 'peers', value: 'P' });
  });

  it('hedge starts the nodes, and lets them be waited for, at the first sign of trouble', async () => {
    const patience = patient();
    const scene = new Scene({ patience });
    await turn();
    scene.trouble();
    await turn();
    expect(scene.started).toEqual(['upstream', 'peers']);
    expect(await patience.leftMs()).toBeGreaterThan(0);
    scene.upstream.resolve('U');
    expect(await scene.result).toEqual({ from: 'upstream', value: 'U' });
    expect(patience.over.aborted).toBe(true);
  });

  it('hedge hands the client going away on to both sides', async () => {
    const scene = new Scene();
    await turn(HEDGE_MS);
    scene.client.abort();
    expect(scene.aborted).toEqual(['upstream', 'peers']);
    scene.upstream.reject(new Error('gone'));
    scene.peers.resolve(undefined);
    expect(await scene.result).toMatchObject({ from: 'nobody' });
  });
});
