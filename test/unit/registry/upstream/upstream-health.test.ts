import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { UpstreamFailure } from '../../../../src/registry/upstream/upstream-failure.ts';
import { UpstreamHealth, type Outage } from '../../../../src/registry/upstream/upstream-health.ts';
import type {
  UpstreamRequest,
  UpstreamResponse,
} from '../../../../src/registry/upstream/upstream-client.ts';
import { silentLogger } from '../../../../src/telemetry/logger.ts';

const GAP_MS = 300;
const PROBE_MS = 3000;
const refused = new UpstreamFailure('refused', 'registry.test refused the connection');

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

/** A health record whose looks at the upstream a test answers. */
function scene() {
  const looks: UpstreamRequest[] = [];
  const changes: (Outage | undefined)[] = [];
  const state = { answer: async (): Promise<number> => 401 };
  const health = new UpstreamHealth(
    { proofGapMs: GAP_MS, probeIntervalMs: PROBE_MS, probeTimeoutMs: 1000 },
    {
      client: {
        host: 'registry.test',
        send: async (request) => {
          looks.push(request);
          const status = await state.answer();
          const body = { destroy: () => undefined, on: () => undefined };
          return {
            status,
            headers: {},
            body,
            host: 'registry.test',
          } as unknown as UpstreamResponse;
        },
      },
      log: silentLogger,
      now: () => Date.now(),
      onChange: (outage) => changes.push(outage),
    },
  );
  const down = (): void => {
    state.answer = () => Promise.reject(refused);
  };
  const fail = (failure = refused): void => health.recordFailure(failure, Date.now());
  const proveOutage = (): void => {
    fail();
    vi.advanceTimersByTime(GAP_MS);
    fail();
  };
  return { health, looks, changes, state, down, fail, proveOutage };
}

describe('UpstreamHealth', () => {
  it('UpstreamHealth takes two failures far enough apart for an outage', () => {
    const { health, changes, fail } = scene();
    const sinceMs = Date.now();
    fail();
    expect(health.outage).toBeUndefined();
    vi.advanceTimersByTime(GAP_MS);
    fail();
    expect(health.outage).toEqual({ sinceMs, cause: refused, savedRequests: 0 });
    expect(changes).toEqual([health.outage]);
    health.close();
  });

  it('UpstreamHealth counts what was saved in an outage, and nothing outside of one', () => {
    const { health, fail } = scene();
    health.recordSaved();
    fail();
    vi.advanceTimersByTime(GAP_MS);
    fail();
    health.recordSaved();
    health.recordSaved();
    expect(health.outage?.savedRequests).toBe(2);
    health.recordSuccess();
    expect(health.outage).toBeUndefined();
  });

  it('UpstreamHealth does not take failures of one moment for an outage', () => {
    const { health, fail } = scene();
    for (let n = 0; n < 50; n += 1) fail();
    vi.advanceTimersByTime(GAP_MS - 1);
    fail();
    expect(health.outage).toBeUndefined();
  });

  it('UpstreamHealth does not take failures for one outage that lie far apart', () => {
    const { health, fail } = scene();
    fail();
    vi.advanceTimersByTime(3_600_000);
    fail();
    expect(health.outage).toBeUndefined();
    vi.advanceTimersByTime(GAP_MS);
    fail();
    expect(health.outage).toBeDefined();
    health.close();
  });

  it('UpstreamHealth starts anew after a success between two failures', () => {
    const { health, fail } = scene();
    fail();
    vi.advanceTimersByTime(GAP_MS);
    health.recordSuccess();
    fail();
    expect(health.outage).toBeUndefined();
  });

  it('UpstreamHealth goes by when attempts began, in whatever order they end', () => {
    const { health } = scene();
    const nowMs = Date.now();
    health.recordFailure(refused, nowMs);
    health.recordFailure(refused, nowMs - GAP_MS);
    expect(health.outage?.sinceMs).toBe(nowMs - GAP_MS);
    health.close();
  });

  it.each([
    'rate_limited',
    'bad_answer',
    'forbidden_address',
    'redirect',
    'local',
    'cancelled',
  ] as const)('UpstreamHealth takes no number of %s for an outage', (kind) => {
    const { health, fail } = scene();
    for (let n = 0; n < 5; n += 1) {
      fail(new UpstreamFailure(kind, 'x'));
      vi.advanceTimersByTime(GAP_MS);
    }
    expect(health.outage).toBeUndefined();
  });

  it.each(['refused', 'reset', 'dns', 'tls', 'timeout', 'proxy', 'gateway', 'cut'] as const)(
    'UpstreamHealth takes two of %s for an outage',
    (kind) => {
      const { health, fail } = scene();
      fail(new UpstreamFailure(kind, 'x'));
      vi.advanceTimersByTime(GAP_MS);
      fail(new UpstreamFailure(kind, 'x'));
      expect(health.outage?.cause.kind).toBe(kind);
      health.close();
    },
  );

  it('UpstreamHealth asks the registry itself before an error status counts', async () => {
    const { health, fail, state, looks } = scene();
    const failing = new UpstreamFailure('server_error', 'registry.test answers 500');
    fail(failing);
    await vi.advanceTimersByTimeAsync(GAP_MS);
    fail(failing);
    await vi.advanceTimersByTimeAsync(0);
    // One repository is broken; the registry is not.
    expect([health.outage, looks.length]).toEqual([undefined, 1]);
    state.answer = async () => 503;
    fail(failing);
    await vi.advanceTimersByTimeAsync(GAP_MS);
    fail(failing);
    await vi.advanceTimersByTimeAsync(0);
    expect(health.outage?.cause.kind).toBe('server_error');
    health.close();
  });

  it('UpstreamHealth looks in the background until the upstream answers', async () => {
    const { health, looks, changes, state, down, proveOutage } = scene();
    down();
    proveOutage();
    await vi.advanceTimersByTimeAsync(PROBE_MS * 4);
    expect(looks.length).toBeGreaterThanOrEqual(3);
    expect(looks.length).toBeLessThanOrEqual(5);
    expect(looks[0]).toMatchObject({ method: 'GET', path: '/v2/', fresh: true, headers: {} });
    expect(health.outage).toBeDefined();
    state.answer = async () => 401;
    await vi.advanceTimersByTimeAsync(PROBE_MS * 1.3);
    expect(health.outage).toBeUndefined();
    expect(changes.map((change) => change !== undefined)).toEqual([true, false]);
    const { length } = looks;
    await vi.advanceTimersByTimeAsync(PROBE_MS * 4);
    expect(looks.length).toBe(length);
  });

  it.each([200, 401, 403, 404, 429])(
    'UpstreamHealth takes a look that gets %i for life',
    async (status) => {
      const { health, state, proveOutage } = scene();
      proveOutage();
      state.answer = async () => status;
      expect(await health.probe()).toBeUndefined();
      expect(health.outage).toBeUndefined();
    },
  );

  it('UpstreamHealth does not take a look that gets 5xx for life', async () => {
    const { health, state, proveOutage } = scene();
    proveOutage();
    state.answer = async () => 502;
    expect(await health.probe()).toMatchObject({ kind: 'server_error' });
    expect(health.outage).toBeDefined();
    health.close();
  });

  it('UpstreamHealth shares one look among all who ask meanwhile', async () => {
    const { health, looks } = scene();
    await Promise.all([health.probe(), health.probe(), health.probe()]);
    expect(looks.length).toBe(1);
    await health.probe();
    expect(looks.length).toBe(2);
  });

  it('UpstreamHealth looks at one pace, however often outages come and go', async () => {
    const { health, looks, down, proveOutage, state } = scene();
    const held = Promise.withResolvers<number>();
    proveOutage();
    // A look of the first outage is still under way when the second one begins.
    state.answer = () => held.promise;
    await vi.advanceTimersByTimeAsync(PROBE_MS * 1.3);
    health.recordSuccess();
    proveOutage();
    down();
    held.reject(refused);
    await vi.advanceTimersByTimeAsync(0);
    expect(vi.getTimerCount()).toBe(1);
    const { length } = looks;
    await vi.advanceTimersByTimeAsync(PROBE_MS * 10);
    expect(looks.length - length).toBeLessThanOrEqual(14);
    health.close();
  });

  it('UpstreamHealth tells of each beginning and each end once', async () => {
    const { health, changes, proveOutage, fail } = scene();
    for (let round = 0; round < 3; round += 1) {
      proveOutage();
      vi.advanceTimersByTime(GAP_MS);
      fail();
      fail();
      health.recordSuccess();
      health.recordSuccess();
    }
    expect(changes.map((change) => change !== undefined)).toEqual([
      true,
      false,
      true,
      false,
      true,
      false,
    ]);
  });

  it('UpstreamHealth ends its outage and its looks when it is closed', async () => {
    const { health, changes, looks, down, fail, proveOutage } = scene();
    down();
    proveOutage();
    health.close();
    expect(changes.map((change) => change !== undefined)).toEqual([true, false]);
    // What was under way fails now, and begins nothing.
    fail();
    vi.advanceTimersByTime(GAP_MS);
    fail();
    health.close();
    expect(health.outage).toBeUndefined();
    expect(changes.length).toBe(2);
    expect(vi.getTimerCount()).toBe(0);
    await vi.advanceTimersByTimeAsync(PROBE_MS * 3);
    expect(looks).toEqual([]);
  });

  it('UpstreamHealth aborts a look that is under way when it is closed', async () => {
    const { health, looks, state } = scene();
    state.answer = () =>
      new Promise((_, reject) => looks[0]?.signal.addEventListener('abort', () => reject(refused)));
    const look = health.probe();
    await vi.advanceTimersByTimeAsync(0);
    health.close();
    expect(looks[0]?.signal.aborted).toBe(true);
    expect(await look).toBe(refused);
  });
});
