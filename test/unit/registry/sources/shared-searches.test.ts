import { describe, expect, test } from 'vitest';
import { HolderSearch } from '../../../../src/registry/sources/holder-search.ts';
import { SharedSearches } from '../../../../src/registry/sources/shared-searches.ts';
import type { LocatedHolder } from '../../../../src/rpc/agent-client.ts';
import { silentLogger } from '../../../../src/telemetry/logger.ts';

const key = { name: 'registry.test/app:v1' };
const holder: LocatedHolder = {
  node: 'a',
  address: 'a.test:1',
  sizeBytes: 1,
  verified: true,
  busy: false,
  far: false,
  tags: [],
  registrySeen: true,
};

/** Searches whose answer comes when the test lets it; `aborted` counts those that were ended. */
function scene() {
  const state = { asked: 0, aborted: 0, nowMs: 0 };
  const answer = Promise.withResolvers<undefined>();
  const searches = new SharedSearches({
    now: () => state.nowMs,
    start: (wanted, signal, again) =>
      new HolderSearch(
        wanted,
        again === undefined ? { timeoutMs: 60_000, signal } : { again, signal },
        {
          log: silentLogger,
          agent: {
            connect: async () => true,
            async *locate(_key, limits) {
              state.asked += 1;
              limits.signal?.addEventListener('abort', () => {
                state.aborted += 1;
                answer.resolve(undefined);
              });
              await answer.promise;
              yield { holder };
              yield { summary: { asked: 1, failed: 0 } };
            },
          },
        },
      ),
  });
  return { searches, state, answer: () => answer.resolve(undefined) };
}

const forever = new AbortController().signal;

describe('SharedSearches', () => {
  test('ask once for all that look for a key at the same time', async () => {
    const { searches, state, answer } = scene();
    const lookups = Array.from({ length: 100 }, () => searches.join(key, forever));
    answer();
    const found = await Promise.all(lookups.map((lookup) => lookup.next(() => true)));
    expect(found).toEqual(lookups.map(() => holder));
    expect(state.asked).toBe(1);
  });

  test('go on while one of them still waits, and end with the last', async () => {
    const { searches, state } = scene();
    const gone = new AbortController();
    const first = searches.join(key, gone.signal);
    const second = searches.join(key, forever);
    gone.abort();
    first.cancel();
    expect(state.aborted).toBe(0);
    second.cancel();
    expect(state.aborted).toBe(1);
    await second.all();
  });

  test('look again for whoever comes after the answer', async () => {
    const { searches, state, answer } = scene();
    answer();
    await searches.join(key, forever).all();
    await searches.join(key, forever).all();
    expect(state.asked).toBe(2);
  });

  test('keep different keys apart', async () => {
    const { searches, state, answer } = scene();
    const lookups = [searches.join(key, forever), searches.join({ name: 'other' }, forever)];
    answer();
    await Promise.all(lookups.map((lookup) => lookup.all()));
    expect(state.asked).toBe(2);
  });

  test('share a second look among all who want the same nodes asked', async () => {
    const { searches, state, answer } = scene();
    const again = { nodes: ['b', 'a'], waitMs: 60_000 };
    const lookups = Array.from({ length: 500 }, () => searches.join(key, forever, again));
    lookups.push(searches.join(key, forever, { ...again, nodes: ['a', 'b'] }));
    await new Promise((resolve) => setImmediate(resolve));
    expect(state.asked).toBe(1);
    const others = [
      searches.join(key, forever, { ...again, nodes: ['c'] }),
      searches.join(key, forever),
    ];
    await new Promise((resolve) => setImmediate(resolve));
    expect(state.asked).toBe(3);
    answer();
    const found = await Promise.all([...lookups, ...others].map((one) => one.next(() => true)));
    expect(new Set(found)).toEqual(new Set([holder]));
  });

  test('begin another second look for whoever has much more time than the one under way', async () => {
    const { searches, state, answer } = scene();
    const again = { nodes: ['a'], waitMs: 60_000 };
    searches.join(key, forever, again);
    state.nowMs += 400;
    searches.join(key, forever, again);
    await new Promise((resolve) => setImmediate(resolve));
    expect(state.asked).toBe(1);
    state.nowMs += 400;
    const last = searches.join(key, forever, again);
    await new Promise((resolve) => setImmediate(resolve));
    expect(state.asked).toBe(2);
    answer();
    await last.all();
  });
});
