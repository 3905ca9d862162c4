import { describe, expect, it } from 'vitest';
import { RateLimits } from '../../../../src/registry/upstream/rate-limit.ts';
import { expectNoLeaks } from '../../../support/no-leaks.ts';

expectNoLeaks();

const START_MS = Date.parse('2026-11-24T12:00:00Z');
const never = new AbortController().signal;

function scene() {
  const clock = { nowMs: START_MS };
  const limits = new RateLimits({ host: 'registry.test' }, { now: () => clock.nowMs });
  /** Sends one request that is told to wait. */
  const limit = async (headers: Record<string, string> = {}, who = 'a'): Promise<number> => {
    const permit = await limits.enter(who, never);
    const waitMs = permit.limited({ headers });
    permit.done();
    return waitMs;
  };
  return { clock, limits, limit };
}

describe('RateLimits', () => {
  it.each([
    ['7', 7000],
    ['0', 1000],
    ['3600', 60_000],
    ['99999999999999', 5000],
    [String(START_MS / 1000 + 30), 30_000],
    [String(START_MS / 1000 - 30), 1000],
    ['Tue, 24 Nov 2026 12:00:20 GMT', 20_000],
    ['Tue, 24 Nov 2026 11:00:00 GMT', 1000],
    ['soon', 5000],
    ['-5', 5000],
    ['1.5', 5000],
    ['', 5000],
  ])('RateLimits understands Retry-After: %s', async (retryAfter, waitMs) => {
    expect(await scene().limit({ 'retry-after': retryAfter })).toBe(waitMs);
  });

  it("RateLimits understands Docker Hub's own header, and none", async () => {
    const { limit } = scene();
    expect(await limit({ 'x-retry-after': String(START_MS / 1000 + 12) })).toBe(12_000);
    expect(await scene().limit()).toBe(5000);
  });

  it('RateLimits fails requests of the same credentials with the time that is left', async () => {
    const { clock, limits, limit } = scene();
    await limit({ 'retry-after': '10' });
    clock.nowMs += 3500;
    const failure = { kind: 'rate_limited', status: 429, retryAfter: '7' };
    await expect(limits.enter('a', never)).rejects.toMatchObject(failure);
    (await limits.enter('b', never)).done();
  });

  it('RateLimits lets one request go first when the time is over', async () => {
    const { clock, limits, limit } = scene();
    await limit({ 'retry-after': '10' });
    clock.nowMs += 10_000;
    const first = await limits.enter('a', never);
    let entered = 0;
    const others = [1, 2].map(async () => {
      const permit = await limits.enter('a', never);
      entered += 1;
      permit.done();
    });
    await Promise.resolve();
    expect(entered).toBe(0);
    first.done();
    await Promise.all(others);
    expect(entered).toBe(2);
  });

  it('RateLimits starts anew when that one is limited again', async () => {
    const { clock, limits, limit } = scene();
    await limit({ 'retry-after': '10' });
    clock.nowMs += 10_000;
    const first = await limits.enter('a', never);
    const other = limits.enter('a', never);
    first.limited({ headers: { 'retry-after': '20' } });
    first.done();
    await expect(other).rejects.toMatchObject({ retryAfter: '20' });
  });

  it('RateLimits does not forget a limit for a request that was sent before it', async () => {
    const { limits, limit } = scene();
    const early = await limits.enter('a', never);
    await limit();
    early.done();
    await expect(limits.enter('a', never)).rejects.toMatchObject({ kind: 'rate_limited' });
  });

  it('RateLimits makes nobody wait for long, nor for one that goes', async () => {
    const { clock, limits, limit } = scene();
    await limit({ 'retry-after': '10' });
    clock.nowMs += 10_000;
    const first = await limits.enter('a', never);
    const leaving = new AbortController();
    const left = limits.enter('a', leaving.signal);
    leaving.abort();
    await expect(left).rejects.toMatchObject({ kind: 'cancelled' });
    clock.nowMs += 2000;
    (await limits.enter('a', never)).done();
    first.done();
  });

  it('RateLimits remembers a bounded number of credentials', async () => {
    const { limits, limit } = scene();
    for (let at = 0; at <= 1000; at += 1) await limit({}, `who ${at}`);
    (await limits.enter('who 0', never)).done();
    await expect(limits.enter('who 1', never)).rejects.toMatchObject({ kind: 'rate_limited' });
  });

  it('RateLimits tells what was said last, until its window is over', () => {
    const { clock, limits } = scene();
    expect(limits.last).toBeUndefined();
    const said = { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '76;w=21600' };
    limits.note({ headers: { ...said, 'docker-ratelimit-source': '192.0.2.1' } });
    limits.note({ headers: {} });
    limits.note({ headers: { 'ratelimit-remaining': 'many' } });
    const last = { limit: 100, remaining: 76, windowSeconds: 21_600, atMs: START_MS };
    expect(limits.last).toEqual(last);
    clock.nowMs += 21_600_000;
    expect(limits.last).toBeUndefined();
    limits.note({ headers: { 'ratelimit-remaining': '5' } });
    expect(limits.last).toMatchObject({ remaining: 5, limit: undefined });
  });
});
