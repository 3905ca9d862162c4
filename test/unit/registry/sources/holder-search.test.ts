import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../../src/oci/digest.ts';
import { HolderSearch } from '../../../../src/registry/sources/holder-search.ts';
import type { LocatedHolder } from '../../../../src/rpc/agent-client.ts';
import { silentLogger } from '../../../../src/telemetry/logger.ts';

const key = { digest: digestOf(Buffer.from('any')) };
const anyone = (): boolean => true;

function holder(node: string, verified: boolean, far = false): LocatedHolder {
  const said = { sizeBytes: 3, verified, busy: false, tags: [], registrySeen: true, far };
  return { node, address: `${node}:1`, ...said };
}

/** A search whose answers come at these times, in milliseconds; without an end it goes on. */
function search(
  answers: readonly (readonly [atMs: number, holder: LocatedHolder])[],
  options: { readonly ends?: boolean } = {},
): HolderSearch {
  const stop = new AbortController();
  return new HolderSearch(
    key,
    { timeoutMs: 5000, signal: stop.signal },
    {
      agent: {
        connect: async () => true,
        async *locate(_, { signal }) {
          let now = 0;
          for (const [atMs, found] of answers) {
            if (atMs > now) await delay(atMs - now, undefined, { signal });
            now = atMs;
            yield { holder: found };
          }
          if (options.ends === false) await delay(60_000, undefined, { signal });
          yield { summary: { asked: answers.length, failed: 0 } };
        },
      },
      cost: ({ far, verified }) => (verified ? 0 : 2) + (far ? 1 : 0),
      log: silentLogger,
    },
  );
}

describe('HolderSearch', () => {
  it('HolderSearch gives whoever answers first to readers that hash all', async () => {
    const found = search([[0, holder('quick', false)]], { ends: false });
    expect(await found.next(anyone)).toMatchObject({ node: 'quick' });
    found.cancel();
  });

  it('HolderSearch prefers a hashed copy though another answers first', async () => {
    const found = search(
      [
        [0, holder('quick', false)],
        [10, holder('sound', true)],
      ],
      { ends: false },
    );
    expect(await found.next(anyone, { bestFirst: true })).toMatchObject({ node: 'sound' });
    found.cancel();
  });

  it('HolderSearch waits for a hashed copy no longer than others take to answer', async () => {
    const found = search([[0, holder('quick', false)]]);
    expect(await found.next(anyone, { bestFirst: true })).toMatchObject({ node: 'quick' });
    expect(found.summary).toEqual({ asked: 1, failed: 0 });
  });

  it('HolderSearch takes a copy that nobody has hashed when some do not answer', async () => {
    const found = search([[0, holder('quick', false)]], { ends: false });
    expect(await found.next(anyone, { bestFirst: true })).toMatchObject({ node: 'quick' });
    found.cancel();
  });

  it('HolderSearch prefers a copy of its zone though another answers first', async () => {
    const found = search(
      [
        [0, holder('quick', true, true)],
        [10, holder('near', true)],
      ],
      { ends: false },
    );
    expect(await found.next(anyone, { bestFirst: true })).toMatchObject({ node: 'near' });
    found.cancel();
  });

  it.each([true, false])(
    'HolderSearch takes a copy far away if no other is there: %s',
    async (ends) => {
      const found = search([[0, holder('quick', true, true)]], { ends });
      expect(await found.next(anyone, { bestFirst: true })).toMatchObject({ node: 'quick' });
      found.cancel();
    },
  );

  it('HolderSearch says that none is left when all have answered', async () => {
    const found = search([[0, holder('quick', true)]]);
    expect(await found.next(() => false, { bestFirst: true })).toBeUndefined();
    expect(found.summary).toEqual({ asked: 1, failed: 0 });
  });
});
