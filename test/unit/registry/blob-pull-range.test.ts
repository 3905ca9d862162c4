import { describe, expect, it } from 'vitest';
import { FakeUpstream, pullRequest } from './fake-sources.ts';
import { cutBody, responseOf } from './upstream/fake-response.ts';

import {
  small,
  big,
  refusing,
  sending,
  saying,
  scene,
  get,
  altered,
  down,
} from './blob-pull-scene.ts';

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
    expect([got.status, got.error]).toEqual([503, undefined]);
  });

  it('BlobPull gives a range of a node that hashes its copy when asked to', async () => {
    const { pull, agent } = scene([{ node: 'a', bytes: small, verified: false, hashes: 'right' }]);
    const got = await get(pull, pullRequest(refusing(), { range }), small);
    expect([got.status, got.bytes.equals(part)]).toEqual([206, true]);
    expect(agent.reads[0]?.offsetBytes).toBe(1000);
  });

  it.each(['bytes=0-', range])(
    'BlobPull gives no byte of %s from a node that finds its copy wrong',
    async (wanted) => {
      const { pull, agent } = scene([
        { node: 'a', bytes: altered(big), verified: false, hashes: 'wrong' },
        { node: 'b', bytes: big, verified: false, hashes: 'right' },
      ]);
      const got = await get(pull, pullRequest(refusing(), { range: wanted }), big);
      expect([got.status, got.headers['salvor-source']]).toEqual([206, 'node/b']);
      expect(got.error).toBeUndefined();
      expect(agent.reported).toEqual(['a', 'b']);
    },
  );

  it('BlobPull continues no part that a client may leave with bytes nobody has hashed', async () => {
    const upstream = new FakeUpstream(({ headers }) => {
      if (headers['range'] !== undefined) throw down;
      return responseOf({
        headers: { 'content-length': String(big.length) },
        body: cutBody(big.subarray(0, 1_000_000)),
      });
    });
    const { pull } = scene([
      { node: 'a', bytes: altered(big, 2_000_000), verified: false, hashes: 'wrong' },
      { node: 'b', bytes: big, verified: false, hashes: 'right' },
    ]);
    const got = await get(pull, pullRequest(upstream, { range: 'bytes=0-' }), big);
    expect(got.error).toBeUndefined();
    expect(got.bytes.equals(big)).toBe(true);
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

  it('BlobPull hashes all that a node sends which alone has a copy and vouches no longer', async () => {
    const { pull, agent } = scene([
      { node: 'a', bytes: small, verified: true, verifiedWhenRead: false },
    ]);
    const got = await get(pull, pullRequest(refusing(), { range }), small);
    expect([got.status, got.bytes.equals(part)]).toEqual([206, true]);
    expect(agent.reads.map(({ offsetBytes }) => offsetBytes > 0)).toEqual([true, false]);
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
