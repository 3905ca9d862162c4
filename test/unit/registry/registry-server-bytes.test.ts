import { describe, expect, it } from 'vitest';
import type { Answer } from '../../../src/registry/answer.ts';
import { ByteBudget } from '../../../src/registry/byte-budget.ts';
import type { PullRequest } from '../../../src/registry/pull-request.ts';
import { WrongBytesError } from '../../../src/registry/relay.ts';
import { SourceError } from '../../../src/registry/sources/source.ts';
import { expectNoLeaks } from '../../support/no-leaks.ts';
import { waitFor } from '../../support/wait.ts';
import { FakeBody } from './fake-body.ts';
import { blobPath, connect, logged, start, streamed, whole } from './registry-server-scene.ts';

expectNoLeaks();

const SHARE_BYTES = 600;
const abc = Buffer.from('abc');

/** A server whose blobs take a share of a budget that has room for one. */
async function scene(
  make: (request: PullRequest) => Answer | Promise<Answer>,
  options: { readonly clientStallMs?: number } = {},
) {
  const budget = new ByteBudget({ limitBytes: 1000 });
  const taken: boolean[] = [];
  const { port } = await start({
    ...options,
    budget,
    blob: async (request) => {
      taken.push(request.lease.grow(SHARE_BYTES));
      return make(request);
    },
  });
  return { budget, taken, client: await connect(port) };
}

/** A body that ends by itself, or is cut off when its client goes. */
function body(...steps: readonly (Buffer | Error)[]): FakeBody {
  return new FakeBody({ sizeBytes: 6, ...(steps.length === 0 ? {} : { steps }) });
}

const ended = (end: string): Promise<true> =>
  waitFor(() => logged.some(({ fields }) => fields['end'] === end));

describe('RegistryServer and the bytes in flight', () => {
  it('RegistryServer lets a request have its share until its last byte is out', async () => {
    const source = body();
    const { budget, client } = await scene(() => streamed(source));
    client.get(blobPath);
    source.push(abc);
    await client.until(({ text }) => text.endsWith('abc'));
    expect(budget.usedBytes).toBe(SHARE_BYTES);
    source.push(abc);
    source.end();
    await client.answer();
    await waitFor(() => budget.usedBytes === 0);
  });

  it.each([
    { how: 'is a whole', end: 'complete', answer: () => whole(abc) },
    {
      how: 'breaks off',
      end: 'cut',
      answer: () => streamed(body(abc, new SourceError('cut', ''))),
    },
    {
      how: 'turns out wrong',
      end: 'wrong_bytes',
      answer: () => streamed(body(abc, new WrongBytesError(''))),
    },
  ])('RegistryServer takes the share back when the body $how', async ({ end, answer }) => {
    const { budget, client, taken } = await scene(answer);
    client.get(blobPath);
    await ended(end);
    expect(taken).toEqual([true]);
    await waitFor(() => budget.usedBytes === 0);
  });

  it('RegistryServer takes the share back when the client leaves', async () => {
    const source = body();
    const { budget, client } = await scene((request) => {
      request.signal.addEventListener('abort', () => source.cancel());
      return streamed(source);
    });
    client.get(blobPath);
    source.push(abc);
    await client.until(({ text }) => text.endsWith('abc'));
    client.close();
    await ended('client_gone');
    await waitFor(() => budget.usedBytes === 0);
  });

  it('RegistryServer takes the share back of a client that takes nothing', async () => {
    const { budget, client } = await scene(() => whole(Buffer.alloc(64 * 1024 * 1024)), {
      clientStallMs: 100,
    });
    client.socket.pause();
    client.get(blobPath);
    await ended('client_stalled');
    await waitFor(() => budget.usedBytes === 0);
  });

  it('RegistryServer takes the share back of HEAD and stops its source', async () => {
    const source = body();
    const { budget, client } = await scene(() => streamed(source));
    client.send(`HEAD ${blobPath} HTTP/1.1\r\nHost: m\r\n\r\n`);
    await client.answer({ isHead: true });
    await waitFor(() => budget.usedBytes === 0);
    expect(source.cancels).toBe(1);
  });

  it('RegistryServer takes the share back of a pull that throws', async () => {
    const { budget, client, taken } = await scene(() => Promise.reject(new TypeError('a bug')));
    client.get(blobPath);
    await client.untilEnded();
    expect(taken).toEqual([true]);
    await waitFor(() => budget.usedBytes === 0);
  });

  it('RegistryServer stops the source of an answer that it cannot send', async () => {
    const source = body();
    const { budget, client } = await scene(() => ({
      ...streamed(source),
      headers: { 'x-bad': 'a\nb' },
    }));
    client.get(blobPath);
    await client.untilEnded();
    expect(source.cancels).toBe(1);
    await waitFor(() => budget.usedBytes === 0);
  });
});
