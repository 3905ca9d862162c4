import { describe, expect, test } from 'vitest';
import { WrongContentError } from '../../../../src/agent/containerd/content-write.ts';
import { BytePace } from '../../../../src/agent/byte-pace.ts';
import { ContentFetch } from '../../../../src/agent/keeper/content-fetch.ts';
import { FetchError } from '../../../../src/agent/keeper/fetch-error.ts';
import type { OpenedBytes } from '../../../../src/agent/keeper/opened-bytes.ts';
import type { PeerHolder } from '../../../../src/agent/keeper/peer-holders.ts';
import type { WantedBlob } from '../../../../src/agent/keeper/wanted-blob.ts';
import { digestOf } from '../../../../src/oci/digest.ts';
import { FakeClock } from '../../../support/fake-clock.ts';

const content = Buffer.from('0123456789'.repeat(10));
const pieceBytes = 10;
const quiet = { info: () => undefined, warn: () => undefined, debug: () => undefined };
const unpaced = { take: async () => undefined };
const wanted: WantedBlob = {
  digest: digestOf(content),
  sizeBytes: content.byteLength,
  isManifest: false,
  repositories: [{ registry: 'registry.test', repository: 'team/app' }],
};

/** What a source gives: all of it, wrong bytes, a part and then an error, or nothing at all. */
type Behaviour = 'right' | 'wrong' | 'long' | 'silent' | { readonly cutAt: number };

function opened(behaviour: Behaviour, offsetBytes: number): OpenedBytes {
  async function* chunks(): AsyncGenerator<Uint8Array> {
    const bytes = behaviour === 'wrong' ? Buffer.alloc(content.byteLength, 'x') : content;
    for (let start = offsetBytes; start < bytes.byteLength; start += pieceBytes) {
      if (typeof behaviour === 'object' && start >= behaviour.cutAt) throw new Error('cut');
      if (behaviour === 'silent') await new Promise(() => undefined);
      yield bytes.subarray(start, start + pieceBytes);
    }
    if (behaviour === 'long') yield content;
  }
  return { chunks: chunks(), cancel: () => undefined };
}

interface Scene {
  readonly holders?: Readonly<Record<string, Behaviour>>;
  readonly upstream?: Behaviour | FetchError;
}

function scene({ holders = {}, upstream }: Scene) {
  const clock = new FakeClock();
  const asked: string[] = [];
  const reported: string[] = [];
  const found = Object.keys(holders).map((name): PeerHolder => ({
    member: { name, address: `${name}:1` },
    sizeBytes: content.byteLength,
    verified: true,
    busy: false,
    far: false,
  }));
  const fetch = new ContentFetch(
    { stallMs: 1000 },
    {
      holders: {
        find: async () => found,
        open: async ({ member }, { offsetBytes }) => {
          asked.push(`${member.name}@${offsetBytes}`);
          return opened(holders[member.name] ?? 'right', offsetBytes);
        },
        reportCorrupt: ({ member }) => void reported.push(member.name),
      },
      upstream:
        upstream === undefined
          ? undefined
          : {
              open: async ({ offsetBytes }) => {
                asked.push(`upstream@${offsetBytes}`);
                if (upstream instanceof FetchError) throw upstream;
                return opened(upstream, offsetBytes);
              },
            },
      pace: unpaced,
      clock,
      log: quiet,
    },
  );
  const written: Buffer[] = [];
  const write = async (
    chunks: (offsetBytes: number) => AsyncIterable<Uint8Array>,
  ): Promise<string> => {
    written.length = 0;
    for await (const chunk of chunks(0)) written.push(Buffer.from(chunk));
    return 'written';
  };
  const run = (signal = new AbortController().signal) => fetch.fetch(wanted, write, { signal });
  return { run, asked, reported, clock, fetch, written: () => Buffer.concat(written) };
}

/** Takes everything and keeps nothing. */
async function drain(chunks: AsyncIterable<Uint8Array>): Promise<void> {
  const iterator = chunks[Symbol.asyncIterator]();
  while ((await iterator.next()).done !== true);
}

describe('ContentFetch', () => {
  test('takes a blob from a node and does not ask the upstream', async () => {
    const { run, asked, written } = scene({ holders: { a: 'right' }, upstream: 'right' });
    expect(await run()).toEqual({ result: 'written', sources: ['node/a'] });
    expect(asked).toEqual(['a@0']);
    expect(written()).toEqual(content);
  });

  test('asks the upstream when no node has it', async () => {
    const { run, asked } = scene({ upstream: 'right' });
    expect((await run()).sources).toEqual(['upstream']);
    expect(asked).toEqual(['upstream@0']);
  });

  test('goes on at the byte where a source broke, at the upstream in the end', async () => {
    const { run, asked, written } = scene({
      holders: { a: { cutAt: 30 }, b: { cutAt: 60 } },
      upstream: 'right',
    });
    expect((await run()).sources).toEqual(['node/a', 'node/b', 'upstream']);
    expect(asked).toEqual(['a@0', 'b@30', 'upstream@60']);
    expect(written()).toEqual(content);
  });

  test('leaves a source that says nothing for its time', async () => {
    const { run, clock } = scene({ holders: { a: 'silent', b: 'right' } });
    const result = run();
    await clock.untilSleeping();
    clock.advance(1000);
    expect((await result).sources).toEqual(['node/b']);
    expect(clock.sleeping).toBe(0);
  });

  test('begins anew without those that gave wrong bytes, and tells them', async () => {
    const { run, asked, reported, written } = scene({ holders: { a: 'wrong', b: 'right' } });
    expect((await run()).sources).toEqual(['node/b']);
    expect(asked).toEqual(['a@0', 'b@0']);
    expect(reported).toEqual(['a']);
    expect(written()).toEqual(content);
  });

  test('takes no more bytes than the blob has', async () => {
    const { run, written } = scene({ holders: { a: 'long' } });
    await run();
    expect(written()).toEqual(content);
  });

  test.each([
    ['nowhere', {}],
    ['holders_failed', { holders: { a: { cutAt: 10 } } }],
    ['wrong_bytes', { holders: { a: 'wrong', b: 'wrong' } }],
    ['wrong_bytes', { upstream: 'wrong' }],
    ['upstream_down', { upstream: { cutAt: 0 } }],
    ['needs_credentials', { upstream: new FetchError('needs_credentials', 'no') }],
  ] as const)('says %s when it is so', async (reason, parts) => {
    const error: unknown = await scene(parts)
      .run()
      .catch((failure: unknown) => failure);
    expect(error).toBeInstanceOf(FetchError);
    expect((error as FetchError).reason).toBe(reason);
  });

  test('passes on what the writer throws and asks nobody else', async () => {
    const { fetch, asked } = scene({ holders: { a: 'right', b: 'right' } });
    const { signal } = new AbortController();
    const write = async (chunks: (offset: number) => AsyncIterable<Uint8Array>): Promise<void> => {
      for await (const { byteLength } of chunks(0)) {
        if (byteLength > 0) throw new Error('the disk is full');
      }
    };
    await expect(fetch.fetch(wanted, write, { signal })).rejects.toThrow('the disk is full');
    expect(asked).toEqual(['a@0']);
  });

  test('blames nobody when the beginning came from an earlier try', async () => {
    const { fetch, asked, reported } = scene({ holders: { a: 'right' } });
    const { signal } = new AbortController();
    let tries = 0;
    const write = async (chunks: (offset: number) => AsyncIterable<Uint8Array>): Promise<void> => {
      tries += 1;
      await drain(chunks(tries === 1 ? 50 : 0));
      if (tries === 1) throw new WrongContentError('wrong');
    };
    await fetch.fetch(wanted, write, { signal });
    expect(asked).toEqual(['a@50', 'a@0']);
    expect(reported).toEqual([]);
  });

  test('ends at once when it is cancelled', async () => {
    const { run, clock } = scene({ holders: { a: 'silent', b: 'right' } });
    const stop = new AbortController();
    const result = run(stop.signal);
    await clock.untilSleeping();
    stop.abort(new Error('The agent stops'));
    await expect(result).rejects.toThrow('The agent stops');
    expect(clock.sleeping).toBe(0);
  });
});

describe('BytePace', () => {
  test('lets through no more than its rate, whatever the size of the pieces', async () => {
    const clock = new FakeClock();
    const pace = new BytePace({ bytesPerSecond: 1000 }, { clock });
    const { signal } = new AbortController();
    const beginMs = clock.now();
    for (const bytes of [500, 1, 1, 1, 1, 1, 495, 1000, 3000]) {
      const taken = pace.take(bytes, { signal });
      // Waits that are too short are saved up: then nothing sleeps.
      while (clock.sleeping > 0) clock.advance(1);
      await taken;
    }
    expect(clock.now() - beginMs).toBeGreaterThanOrEqual(5000 - 10);
    expect(clock.now() - beginMs).toBeLessThan(5100);
  });
});
