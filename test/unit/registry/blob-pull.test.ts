import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../src/oci/digest.ts';
import { ManifestCache } from '../../../src/registry/manifest-cache.ts';
import { WrongBytesError } from '../../../src/registry/relay.ts';
import { UpstreamFailure } from '../../../src/registry/upstream/upstream-failure.ts';
import { waitFor } from '../../support/wait.ts';
import { FakeUpstream, pullRequest } from './fake-sources.ts';
import { cutBody, responseOf, stalledBody } from './upstream/fake-response.ts';

import {
  small,
  big,
  manifest,
  down,
  refusing,
  sending,
  saying,
  scene,
  get,
  read,
  altered,
  message,
} from './blob-pull-scene.ts';

describe('BlobPull of GET', () => {
  it.each([
    ['small', small],
    ['big', big],
  ])('BlobPull gives a %s blob of its upstream with all headers', async (_, bytes) => {
    const upstream = sending(bytes);
    const got = await get(scene().pull, pullRequest(upstream), bytes);
    expect(got.bytes.equals(bytes)).toBe(true);
    expect([got.status, got.headers]).toEqual([
      200,
      {
        'content-type': 'application/octet-stream',
        'content-length': bytes.length,
        'accept-ranges': 'bytes',
        'docker-content-digest': digestOf(bytes),
        'salvor-source': 'upstream',
      },
    ]);
    expect(upstream.asked).toMatchObject([
      { method: 'GET', path: `/v2/team/app/blobs/${digestOf(bytes)}` },
    ]);
  });

  it.each([
    ['small', small],
    ['big', big],
  ])('BlobPull gives a %s blob of a node when the upstream fails', async (_, bytes) => {
    const { pull } = scene([{ node: 'a', bytes }]);
    const got = await get(pull, pullRequest(refusing()), bytes);
    expect([got.status, got.headers['salvor-source']]).toEqual([200, 'node/a']);
    expect(got.bytes.equals(bytes)).toBe(true);
  });

  it('BlobPull continues at a node where the upstream was cut, and counts that', async () => {
    const upstream = new FakeUpstream(({ headers }) => {
      if (headers['range'] !== undefined) throw down;
      return responseOf({
        headers: { 'content-length': String(big.length) },
        body: cutBody(big.subarray(0, 1_500_000)),
      });
    });
    const { pull, agent } = scene([{ node: 'a', bytes: big }]);
    const got = await get(pull, pullRequest(upstream), big);
    expect(got.bytes.equals(big)).toBe(true);
    expect(agent.reads).toMatchObject([{ offsetBytes: 1_500_000 }]);
    expect(upstream.bodyFailures.map(({ kind }) => kind)).toEqual(['cut']);
  });

  it('BlobPull asks the endpoint that broke off for the rest, and counts it against that', async () => {
    const begunAt: unknown[] = [];
    const upstream = new FakeUpstream(({ headers }, { endpoint }) => {
      begunAt.push(endpoint);
      const start = Number(/^bytes=(\d+)-$/.exec(headers['range'] ?? '')?.[1] ?? 0);
      const range = `bytes ${start}-${big.length - 1}/${big.length}`;
      const response = responseOf({
        status: start > 0 ? 206 : 200,
        headers: { 'content-length': String(big.length - start), 'content-range': range },
        body: start > 0 ? big.subarray(start) : cutBody(big.subarray(0, 1_500_000)),
      });
      return { ...response, endpoint: 2 };
    });
    const failed: unknown[] = [];
    const request = pullRequest(upstream);
    request.upstream.recordBodyFailure = (_, { endpoint }) => void failed.push(endpoint);
    const got = await get(scene([]).pull, request, big);
    expect(got.bytes.equals(big)).toBe(true);
    expect([begunAt, failed]).toEqual([[undefined, 2], [2]]);
  });

  it('BlobPull continues once at an upstream that broke off, then at nodes', async () => {
    const upstream = new FakeUpstream(({ headers }) => {
      const start = Number(/^bytes=(\d+)-$/.exec(headers['range'] ?? '')?.[1] ?? 0);
      return responseOf({
        ...(start > 0 && { status: 206 }),
        headers:
          start > 0
            ? { 'content-range': `bytes ${start}-${big.length - 1}/${big.length}` }
            : { 'content-length': String(big.length) },
        body: cutBody(big.subarray(start, start + 1_000_000)),
      });
    });
    const { pull, agent } = scene([{ node: 'a', bytes: big }]);
    const got = await get(pull, pullRequest(upstream), big);
    expect(got.bytes.equals(big)).toBe(true);
    expect(upstream.asked.map(({ headers }) => headers['range'])).toEqual([
      undefined,
      'bytes=1000000-',
    ]);
    expect(agent.reads).toMatchObject([{ offsetBytes: 2_000_000 }]);
  });

  it('BlobPull takes the rest from an upstream that broke off, not from a wrong copy', async () => {
    const upstream = new FakeUpstream(({ headers }) =>
      headers['range'] === undefined
        ? responseOf({
            headers: { 'content-length': String(big.length) },
            body: cutBody(big.subarray(0, 1_000_000)),
          })
        : responseOf({
            status: 206,
            headers: { 'content-range': `bytes 1000000-${big.length - 1}/${big.length}` },
            body: big.subarray(1_000_000),
          }),
    );
    const { pull } = scene([{ node: 'a', bytes: altered(big, 2_000_000), verified: false }]);
    const got = await get(pull, pullRequest(upstream), big);
    expect(got.error).toBeUndefined();
    expect(got.bytes.equals(big)).toBe(true);
  });

  it('BlobPull continues at the upstream where the last node has died', async () => {
    const upstream = new FakeUpstream(({ headers }) => {
      const start = Number(/^bytes=(\d+)-$/.exec(headers['range'] ?? '')?.[1]);
      return responseOf({
        status: 206,
        headers: { 'content-range': `bytes ${start}-${big.length - 1}/${big.length}` },
        body: big.subarray(start),
      });
    });
    const { pull, load } = scene([
      { node: 'a', bytes: big, breaksAfter: 500_000 },
      { node: 'b', bytes: big, breaksAfter: 500_000 },
    ]);
    const request = pullRequest(upstream, { policy: { peers: 'prefer' } });
    const got = await get(pull, request, big);
    expect(got.error).toBeUndefined();
    expect(got.bytes.equals(big)).toBe(true);
    expect(upstream.asked.map(({ headers }) => headers['range'])).toEqual(['bytes=1000000-']);
    expect([load.cost('a') > 0, load.cost('b') > 0]).toEqual([true, true]);
  });

  it('BlobPull blames nobody when the client leaves in the middle', async () => {
    const upstream = new FakeUpstream(() =>
      responseOf({
        headers: { 'content-length': String(big.length) },
        body: stalledBody(big.subarray(0, 100_000), big.subarray(100_000, 200_000)),
      }),
    );
    const leaving = new AbortController();
    const { pull, agent } = scene([{ node: 'a', bytes: big }]);
    const answer = await pull.answer(
      pullRequest(upstream, { signal: leaving.signal }),
      digestOf(big),
    );
    const { body } = answer;
    if (body === undefined || Buffer.isBuffer(body)) throw new Error('Cannot go on: no stream');
    const iterator = body.chunks[Symbol.asyncIterator]();
    await iterator.next();
    leaving.abort();
    body.cancel();
    await expect(iterator.next()).rejects.toMatchObject({ name: 'SourceError' });
    expect(upstream.bodyFailures).toEqual([]);
    expect(agent.reads).toEqual([]);
  });

  it('BlobPull takes a small blob from the upstream when a node gives it wrong', async () => {
    const upstream = sending(small);
    const { pull, agent } = scene([{ node: 'a', bytes: altered(small) }]);
    const request = pullRequest(upstream, { policy: { peers: 'prefer' } });
    const got = await get(pull, request, small);
    expect(got.bytes.equals(small)).toBe(true);
    expect(agent.reported).toEqual(['a']);
    // It is left alone for this blob from now on.
    await get(pull, pullRequest(upstream, { policy: { peers: 'prefer' } }), small);
    expect(agent.reads.length).toBe(1);
  });

  it('BlobPull asks no upstream again that alone gave wrong bytes', async () => {
    const upstream = sending(altered(small));
    const got = await get(scene().pull, pullRequest(upstream), small);
    expect([got.status, got.error]).toEqual([503, undefined]);
    expect(upstream.asked.length).toBe(1);
  });

  it('BlobPull asks nodes first for a blob of which its upstream gave wrong bytes', async () => {
    const wrong = altered(big);
    const upstream = new FakeUpstream(() =>
      responseOf({
        headers: { 'content-length': String(big.length) },
        body: Readable.from([wrong.subarray(0, 2_000_000), wrong.subarray(2_000_000)]),
      }),
    );
    const { pull, agent } = scene([{ node: 'a', bytes: big }]);
    expect((await get(pull, pullRequest(upstream), big)).error).toBeInstanceOf(WrongBytesError);
    const got = await get(pull, pullRequest(upstream), big);
    expect([got.status, got.headers['salvor-source']]).toEqual([200, 'node/a']);
    expect(got.bytes.equals(big)).toBe(true);
    expect([upstream.asked.length, agent.reported]).toEqual([1, []]);
    await get(scene().pull, pullRequest(upstream), big);
    expect(upstream.asked.length).toBe(2);
  });

  it.each([
    ['less', small.subarray(0, -9)],
    ['more', Buffer.concat([small, Buffer.from('more')])],
  ])('BlobPull believes no size of a small blob whose bytes are %s', async (_, bytes) => {
    const { pull } = scene([{ node: 'a', bytes: small }]);
    const got = await get(pull, pullRequest(sending(bytes)), small);
    expect([got.status, got.headers['content-length']]).toEqual([200, small.length]);
    expect(got.bytes.equals(small)).toBe(true);
  });

  it('BlobPull tells the size of a small blob of a slow upstream before all of it is there', async () => {
    const body = stalledBody(small.subarray(0, 100));
    const headers = { 'content-length': String(small.length) };
    const upstream = new FakeUpstream(() => responseOf({ headers, body }));
    const answer = await scene().pull.answer(pullRequest(upstream), digestOf(small));
    expect([answer.status, answer.headers['content-length']]).toEqual([200, small.length]);
    body.push(small.subarray(100));
    body.push(null);
    const got = await read(answer);
    expect([got.error, got.bytes.equals(small)]).toEqual([undefined, true]);
  });

  it('BlobPull has wrong bytes of a big blob thrown away that have gone out', async () => {
    const { pull, agent } = scene([{ node: 'a', bytes: altered(big) }]);
    const got = await get(pull, pullRequest(refusing()), big);
    expect(got.error).toBeInstanceOf(WrongBytesError);
    expect(got.bytes.length).toBeLessThan(big.length);
    expect(agent.reported).toEqual(['a']);
    await waitFor(() => agent.abortedIngests.length > 0);
    expect(agent.abortedIngests).toEqual([digestOf(big)]);
  });

  it('BlobPull gives up a silent node for the next one', async () => {
    const { pull } = scene([
      { node: 'a', bytes: small, silent: true },
      { node: 'b', bytes: small },
    ]);
    const got = await get(pull, pullRequest(refusing()), small);
    expect([got.status, got.headers['salvor-source']]).toEqual([200, 'node/b']);
  });

  it('BlobPull takes no node that has changed its mind about the size', async () => {
    const { pull } = scene([
      { node: 'a', bytes: small, claimedSizeBytes: 7 },
      { node: 'b', bytes: small },
    ]);
    const got = await get(pull, pullRequest(refusing()), small);
    expect(got.headers['salvor-source']).toBe('node/b');
  });

  it('BlobPull says that nobody has it only when all say so', async () => {
    const missing = await get(scene().pull, pullRequest(saying(404)), small);
    expect([missing.status, message(missing)]).toEqual([
      404,
      `registry.test does not have ${digestOf(small)}`,
    ]);
    const served = await get(
      scene([{ node: 'a', bytes: small }]).pull,
      pullRequest(saying(404)),
      small,
    );
    expect(served.status).toBe(200);
  });

  it('BlobPull says what the upstream failed of and how many nodes were asked', async () => {
    const got = await get(scene().pull, pullRequest(refusing()), small);
    expect(got.status).toBe(503);
    expect(message(got)).toContain('registry.test refused the connection');
    expect(message(got)).toContain('1 nodes were asked');
  });

  it('BlobPull never passes a rate limit on', async () => {
    const limited = new UpstreamFailure('rate_limited', 'registry.test limits the rate (429)', {
      retryAfter: '30',
    });
    const upstream = new FakeUpstream(() => Promise.reject(limited));
    const got = await get(scene().pull, pullRequest(upstream), small);
    expect([got.status, got.headers['retry-after']]).toEqual([503, '30']);
    const served = await get(
      scene([{ node: 'a', bytes: small }]).pull,
      pullRequest(upstream),
      small,
    );
    expect(served.status).toBe(200);
  });

  it('BlobPull passes a challenge on, and asks no node then', async () => {
    const { pull, agent } = scene([{ node: 'a', bytes: small }]);
    const challenge = { 'www-authenticate': 'Bearer realm="https://auth.test/"' };
    const got = await get(pull, pullRequest(saying(401, challenge)), small);
    expect([got.status, got.headers['www-authenticate'], got.bytes.toString()]).toEqual([
      401,
      challenge['www-authenticate'],
      'said',
    ]);
    expect(agent.reads).toEqual([]);
  });

  it('BlobPull gives no manifest for a blob, known or not', async () => {
    const cache = new ManifestCache({ maxBytes: 1e6, consentMs: 1000 });
    cache.put({ digest: digestOf(manifest), mediaType: 'a/b', bytes: manifest });
    const known = await get(scene([], { cache }).pull, pullRequest(sending(manifest)), manifest);
    expect(known.status).toBe(404);
    const { pull } = scene([{ node: 'a', bytes: manifest }]);
    for (const method of ['GET', 'HEAD'] as const) {
      const request = pullRequest(saying(404), { method });
      expect((await get(pull, request, manifest)).status).toBe(404);
    }
  });

  it('BlobPull does not fail because a copy cannot be kept', async () => {
    const keeper = { tap: () => Promise.reject(new Error('ENOSPC')) };
    const got = await get(scene([], { keeper }).pull, pullRequest(sending(small)), small);
    expect(got.bytes.equals(small)).toBe(true);
  });

  it('BlobPull answers when the image is kept, and asks the upstream meanwhile', async () => {
    const kept = Promise.withResolvers<undefined>();
    const asked: string[] = [];
    const notices = {
      blobAsked: async (digest: string): Promise<void> => {
        asked.push(digest);
        await kept.promise;
      },
    };
    const { pull } = scene([], { notices });
    const upstream = sending(small);
    let isAnswered = false;
    const answer = get(pull, pullRequest(upstream), small);
    void answer.then(() => (isAnswered = true));
    await waitFor(() => upstream.asked.length > 0, { what: 'a request to the upstream' });
    await new Promise(setImmediate);
    expect([isAnswered, asked]).toEqual([false, [digestOf(small)]]);
    kept.resolve(undefined);
    expect((await answer).bytes.equals(small)).toBe(true);
  });

  it('BlobPull asks no node where policy does not let it', async () => {
    for (const policy of [{ mode: 'observe' }, { access: 'online' }] as const) {
      const { pull, agent } = scene([{ node: 'a', bytes: small }]);
      const got = await get(pull, pullRequest(refusing(), { policy }), small);
      expect([got.status, agent.reads.length]).toEqual([503, 0]);
    }
  });
});

describe('BlobPull of HEAD', () => {
  const head = { method: 'HEAD' } as const;

  it('BlobPull has nothing kept for HEAD', async () => {
    const asked: string[] = [];
    const notices = { blobAsked: async (digest: string) => void asked.push(digest) };
    const { pull } = scene([], { notices });
    const answer = await pull.answer(
      { ...pullRequest(sending(big)), method: 'HEAD' },
      digestOf(big),
    );
    expect([answer.status, asked]).toEqual([200, []]);
  });

  it('BlobPull forwards HEAD as HEAD', async () => {
    const upstream = new FakeUpstream(() => responseOf({ headers: { 'content-length': '5000' } }));
    const got = await get(scene().pull, pullRequest(upstream, head), small);
    expect([got.status, got.headers['content-length'], got.bytes.length]).toEqual([200, 5000, 0]);
    expect(upstream.asked).toMatchObject([{ method: 'HEAD' }]);
  });

  it.each([
    ['small', small],
    ['big', big],
  ])('BlobPull answers HEAD of a %s blob from a node when the upstream fails', async (_, bytes) => {
    const { pull } = scene([{ node: 'a', bytes }]);
    const got = await get(pull, pullRequest(refusing(), head), bytes);
    expect([got.status, got.headers['content-length']]).toEqual([200, bytes.length]);
    expect(got.headers['salvor-source']).toBe('node/a');
  });

  it('BlobPull never answers HEAD without a length', async () => {
    const silent = (): FakeUpstream => new FakeUpstream(() => responseOf({}));
    const { pull } = scene([{ node: 'a', bytes: small }]);
    const fromNode = await get(pull, pullRequest(silent(), head), small);
    expect([fromNode.status, fromNode.headers['content-length']]).toEqual([200, 5000]);
    const nobody = await get(scene().pull, pullRequest(silent(), head), small);
    expect(nobody.status).toBe(503);
    expect(message(nobody)).toContain('does not say how long');
  });

  it.each([
    { status: 206, headers: { 'content-range': 'bytes 0-9/5000' } },
    { status: 200, headers: { 'content-encoding': 'gzip' } },
  ])('BlobPull takes no length from HEAD that is of something else: $headers', async (answer) => {
    const headers = { 'content-length': '10', ...answer.headers };
    const upstream = new FakeUpstream(() => responseOf({ ...answer, headers }));
    const { pull } = scene([{ node: 'a', bytes: small }]);
    const got = await get(pull, pullRequest(upstream, head), small);
    expect([got.status, got.headers['content-length']]).toEqual([200, small.length]);
  });

  it('BlobPull passes refusals of HEAD on', async () => {
    const got = await get(scene().pull, pullRequest(saying(403), head), small);
    expect(got.status).toBe(403);
  });
});
