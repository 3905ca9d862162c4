import { describe, expect, it, vi } from 'vitest';
import { BusyError } from '../../../src/registry/byte-budget.ts';
import { Patience } from '../../../src/registry/patience.ts';
import {
  UpstreamFailure,
  type UpstreamFailureKind,
} from '../../../src/registry/upstream/upstream-failure.ts';

const BUDGET_MS = 2000;
/** The rest of it is for the answer itself. */
const WAIT_MS = 1800;

/** A request that came in `elapsedMs` ago. */
function scene(elapsedMs = 0) {
  const clock = { nowMs: 1_000_000 };
  const trace = { elapsedMs: () => elapsedMs, begin: () => () => undefined };
  const patience = new Patience({ budgetMs: BUDGET_MS }, { trace, now: () => clock.nowMs });
  return { clock, patience };
}

async function settled<T>(work: Promise<T>): Promise<T | 'pending'> {
  await new Promise((resolve) => setImmediate(resolve));
  return Promise.race([work, Promise.resolve('pending' as const)]);
}

const failing = (kind: UpstreamFailureKind) => () =>
  Promise.reject(new UpstreamFailure(kind, 'registry.test is away'));

describe('Patience', () => {
  it('Patience lasts until the request must be answered', async () => {
    const { clock, patience } = scene(300);
    patience.grant();
    expect(await patience.leftMs()).toBe(WAIT_MS - 300);
    clock.nowMs += 1500;
    expect(await patience.leftMs()).toBe(0);
    clock.nowMs += 1500;
    expect(await patience.leftMs()).toBe(0);
  });

  it('Patience lasts a moment when the trouble comes late, once', async () => {
    const { clock, patience } = scene(1900);
    patience.grant();
    expect(await patience.leftMs()).toBe(250);
    clock.nowMs += 200;
    patience.grant();
    expect(await patience.leftMs()).toBe(50);
  });

  it('Patience does not begin before the upstream has given its word, and says that it is needed', async () => {
    const { patience } = scene();
    expect(await settled(patience.needed)).toBe('pending');
    const left = patience.leftMs();
    expect(await settled(left)).toBe('pending');
    expect(await settled(patience.needed)).toBeUndefined();
    patience.refuse();
    expect(await left).toBe(0);
  });

  it('Patience begins with the first trouble of the upstream, and ends with its answer', async () => {
    const { patience } = scene();
    const troubles: string[] = [];
    const answer = Promise.withResolvers<string>();
    const asked = patience.follow(
      (onTrouble) => {
        onTrouble();
        return answer.promise;
      },
      () => troubles.push('told'),
    );
    expect(troubles).toEqual(['told']);
    expect(await patience.leftMs()).toBe(WAIT_MS);
    expect(patience.over.aborted).toBe(false);
    answer.resolve('not found');
    expect(await asked).toBe('not found');
    expect(patience.over.aborted).toBe(true);
    expect(await patience.leftMs()).toBe(0);
  });

  it.each(['refused', 'timeout', 'server_error', 'rate_limited', 'circuit_open'] as const)(
    'Patience begins with an upstream that has failed: %s',
    async (kind) => {
      const { patience } = scene();
      await expect(patience.follow(failing(kind))).rejects.toMatchObject({ kind });
      expect(await patience.leftMs()).toBe(WAIT_MS);
    },
  );

  it.each(['cancelled', 'forbidden_address'] as const)(
    'Patience is none where nobody was asked: %s',
    async (kind) => {
      const { patience } = scene();
      await expect(patience.follow(failing(kind))).rejects.toMatchObject({ kind });
      expect(await patience.leftMs()).toBe(0);
    },
  );

  it('Patience is none without memory for the answer', async () => {
    const { patience } = scene();
    const ask = (): Promise<never> => Promise.reject(new BusyError('full'));
    await expect(patience.follow(ask)).rejects.toThrow(BusyError);
    expect(await patience.leftMs()).toBe(0);
  });

  it('Patience does not grow when the clock is put back', async () => {
    vi.useFakeTimers();
    try {
      const trace = { elapsedMs: () => 0, begin: () => () => undefined };
      const patience = new Patience({ budgetMs: BUDGET_MS }, { trace });
      patience.grant();
      vi.setSystemTime(Date.now() - 3_600_000);
      expect(await patience.leftMs()).toBe(WAIT_MS);
    } finally {
      vi.useRealTimers();
    }
  });
});
