import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../src/oci/digest.ts';
import type { Answer } from '../../../src/registry/answer.ts';
import { BlobPull, type BlobKeeper } from '../../../src/registry/blob-pull.ts';
import type { Budgets } from '../../../src/registry/budgets.ts';
import { ManifestCache } from '../../../src/registry/manifest-cache.ts';
import type { PullRequest } from '../../../src/registry/pull-request.ts';
import { WrongBytesError } from '../../../src/registry/relay.ts';
import { PeerLoad } from '../../../src/registry/sources/peer-load.ts';
import { Peers } from '../../../src/registry/sources/peers.ts';
import { Quarantine } from '../../../src/registry/sources/quarantine.ts';
import { UpstreamFailure } from '../../../src/registry/upstream/upstream-failure.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { waitFor } from '../../support/wait.ts';
import { FakeAgent, FakeUpstream, pullRequest, type FakeHolding } from './fake-sources.ts';
import { cutBody, responseOf, stalledBody } from './upstream/fake-response.ts';

const small = randomBytes(5000);
const big = randomBytes(3 * 1024 * 1024);
const manifest = Buffer.from(
  JSON.stringify({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: {
      mediaType: 'application/vnd.oci.image.config.v1+json',
      digest: digestOf(Buffer.from('c')),
      size: 1,
    },
    layers: [],
  }),
);

const budgets: Budgets = {
  connectMs: 1000,
  hedgeMs: 10_000,
  peerHeadersMs: 200,
  outageAnswerMs: 1000,
  upstreamHeadersMs: 5000,
  stallMs: 2000,
  locateMs: 1000,
  proofGapMs: 30,
  probeIntervalMs: 1000,
};

const down = new UpstreamFailure('refused', 'registry.test refused the connection');
const refusing = (): FakeUpstream => new FakeUpstream(() => Promise.reject(down));
const sending = (bytes: Buffer): FakeUpstream =>
  new FakeUpstream(() =>
    responseOf({ headers: { 'content-length': String(bytes.length) }, body: bytes }),
  );
const saying = (status: number, headers: Record<string, string> = {}): FakeUpstream =>
  new FakeUpstream(() => responseOf({ status, headers, body: Buffer.from('said') }));

function scene(
  holdings: readonly FakeHolding[] = [],
  options: { keeper?: BlobKeeper; cache?: ManifestCache } = {},
) {
  const agent = new FakeAgent(holdings);
  const load = new PeerLoad();
  const peers = new Peers(
    { budgets },
    {
      agent: agent.client,
      pool: agent.pool,
      quarantine: new Quarantine({ ttlMs: 60_000, maxEntries: 100 }),
      load,
      log: silentLogger,
    },
  );
  const cache = options.cache ?? new ManifestCache({ maxBytes: 1e6, consentMs: 1000 });
  const pull = new BlobPull(
    { budgets },
    { peers, manifests: cache, keeper: options.keeper, log: silentLogger },
  );
  return { agent, load, pull };
}

interface Got {
  readonly status: number;
  readonly headers: Answer['headers'];
  readonly bytes: Buffer;
  readonly error: unknown;
}

async function read(answer: Answer): Promise<Got> {
  const { status, headers, body } = answer;
  const parts: Buffer[] = [];
  let error: unknown;
  if (Buffer.isBuffer(body)) parts.push(body);
  else if (body !== undefined) {
    try {
      for await (const part of body.chunks) parts.push(part);
    } catch (thrown) {
      error = thrown;
    }
  }
  return { status, headers, bytes: Buffer.concat(parts), error };
}

async function get(pull: BlobPull, request: PullRequest, bytes: Buffer): Promise<Got> {
  return read(await pull.answer(request, digestOf(bytes)));
}

function altered(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  copy[0]! ^= 1;
  return copy;
}

function message({ bytes }: Got): string {
  return (JSON.parse(bytes.toString()) as { errors: { message: string }[] }).errors[0]!.message;
}

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
    const upstream = new FakeUpstream(() =>
      responseOf({
        headers: { 'content-length': String(big.length) },
        body: cutBody(big.subarray(0, 1_500_000)),
      }),
    );
    const { pull, agent } = scene([{ node: 'a', bytes: big }]);
    const got = await get(pull, pullRequest(upstream), big);
    expect(got.bytes.equals(big)).toBe(true);
    expect(agent.reads).toMatchObject([{ offsetBytes: 1_500_000 }]);
    expect(upstream.bodyFailures.map(({ kind }) => kind)).toEqual(['cut']);
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
    expect(got.bytes.length).toBe(0);
    expect(got.error).toMatchObject({ outcome: 'wrong_bytes' });
    expect(upstream.asked.length).toBe(1);
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

  it('BlobPull asks no node where policy does not let it', async () => {
    for (const policy of [{ mode: 'observe' }, { access: 'online' }] as const) {
      const { pull, agent } = scene([{ node: 'a', bytes: small }]);
      const got = await get(pull, pullRequest(refusing(), { policy }), small);
      expect([got.status, agent.reads.length]).toEqual([503, 0]);
    }
  });
});

describe('BlobPull of a range', () => {
  const range = 'bytes=1000-1999';
  const part = small.subarray(1000, 2000);

  it('BlobPull gives the range that the upstream gives, or cuts it out of the whole', async () => {
    const partial = new FakeUpstream(() =>
      responseOf({
        status: 206,
        headers: { 'content-range': `bytes 1000-1999/${small.length}` },
        body: part,
      }),
    );
    for (const upstream of [partial, sending(small)]) {
      const got = await get(scene().pull, pullRequest(upstream, { range }), small);
      expect([got.status, got.headers['content-range'], got.headers['content-length']]).toEqual([
        206,
        `bytes 1000-1999/${small.length}`,
        1000,
      ]);
      expect(got.bytes.equals(part)).toBe(true);
      expect(upstream.asked[0]?.headers['range']).toBe(range);
    }
  });

  it('BlobPull asks a node that has hashed its copy for the range, another one for all', async () => {
    for (const [verified, offsetBytes] of [
      [true, 1000],
      [false, 0],
    ] as const) {
      const { pull, agent } = scene([{ node: 'a', bytes: small, verified }]);
      const got = await get(pull, pullRequest(refusing(), { range }), small);
      expect([got.status, got.bytes.equals(part)]).toEqual([206, true]);
      expect(agent.reads[0]?.offsetBytes).toBe(offsetBytes);
    }
  });

  it('BlobPull gives no wrong range of a node that has not hashed its copy', async () => {
    const { pull } = scene([{ node: 'a', bytes: altered(small), verified: false }]);
    const got = await get(pull, pullRequest(refusing(), { range }), small);
    expect(got.bytes.length).toBe(0);
    expect(got.error).toMatchObject({ outcome: 'wrong_bytes' });
  });

  it('BlobPull takes no range from a node that vouches for its copy no longer', async () => {
    const { pull, agent } = scene([
      { node: 'a', bytes: small, verified: true, verifiedWhenRead: false },
      { node: 'b', bytes: small },
    ]);
    const got = await get(pull, pullRequest(refusing(), { range }), small);
    expect([got.status, got.headers['salvor-source']]).toEqual([206, 'node/b']);
    expect(agent.reported).toEqual([]);
  });

  it.each(['bytes=5000-', 'bytes=9999-', 'bytes=9999-10000'])(
    'BlobPull answers %s behind the end with 416 and the size, from a node too',
    async (beyond) => {
      const { pull } = scene([{ node: 'a', bytes: small }]);
      const got = await get(pull, pullRequest(refusing(), { range: beyond }), small);
      expect([got.status, got.headers['content-range']]).toEqual([416, 'bytes */5000']);
      const said = await get(scene().pull, pullRequest(sending(small), { range: beyond }), small);
      expect(said.status).toBe(416);
    },
  );

  it('BlobPull passes the 416 of its upstream on and asks nobody for an inverted range', async () => {
    const upstream = saying(416);
    expect(
      (await get(scene().pull, pullRequest(upstream, { range: 'bytes=9-' }), small)).status,
    ).toBe(416);
    const inverted = pullRequest(upstream, { range: 'bytes=9-1' });
    expect((await get(scene().pull, inverted, small)).status).toBe(416);
    expect(upstream.asked.length).toBe(1);
  });

  it('BlobPull gives the last bytes and ignores ranges that are none', async () => {
    const { pull } = scene([{ node: 'a', bytes: small }]);
    const tail = await get(pull, pullRequest(refusing(), { range: 'bytes=-10' }), small);
    expect([tail.status, tail.bytes.equals(small.subarray(-10))]).toEqual([206, true]);
    for (const odd of ['lines=1-2', 'bytes=1-2,5-6', 'bytes=a-b']) {
      const whole = await get(pull, pullRequest(refusing(), { range: odd }), small);
      expect([whole.status, whole.bytes.length]).toEqual([200, small.length]);
    }
  });
});

describe('BlobPull of HEAD', () => {
  const head = { method: 'HEAD' } as const;

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

  it('BlobPull passes refusals of HEAD on', async () => {
    const got = await get(scene().pull, pullRequest(saying(403), head), small);
    expect(got.status).toBe(403);
  });
});
