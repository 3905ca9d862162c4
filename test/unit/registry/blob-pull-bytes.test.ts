import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../src/oci/digest.ts';
import {
  ByteBudget,
  STREAM_SHARE_BYTES,
  type ByteLease,
} from '../../../src/registry/byte-budget.ts';
import type { PullRequest } from '../../../src/registry/pull-request.ts';
import {
  big,
  down,
  get,
  message,
  read,
  refusing,
  scene,
  sending,
  small,
} from './blob-pull-scene.ts';
import { FakeUpstream, pullRequest } from './fake-sources.ts';
import { responseOf, stalledBody } from './upstream/fake-response.ts';

const busy = { status: 503, headers: { 'retry-after': '1' } };

interface Asked {
  readonly request: PullRequest;
  readonly lease: ByteLease;
}

function ask(budget: ByteBudget, upstream: FakeUpstream, options: object = {}): Asked {
  const lease = budget.open();
  return { lease, request: pullRequest(upstream, { ...options, lease }) };
}

/** An upstream whose bodies a test can see being stopped. */
function watched(bytes: Buffer): { upstream: FakeUpstream; stopped: () => number } {
  const bodies: { destroyed: boolean }[] = [];
  const upstream = new FakeUpstream(() => {
    const body = stalledBody(bytes.subarray(0, 1000));
    bodies.push(body);
    return responseOf({ headers: { 'content-length': String(bytes.length) }, body });
  });
  return { upstream, stopped: () => bodies.filter(({ destroyed }) => destroyed).length };
}

describe('BlobPull and the bytes in flight', () => {
  it('BlobPull sets a fixed share aside for a stream, whatever its size', async () => {
    const budget = new ByteBudget({ limitBytes: 10 * STREAM_SHARE_BYTES });
    const { pull } = scene([], { budget });
    const { lease, request } = ask(budget, sending(big));
    const answer = await pull.answer(request, digestOf(big));
    expect(budget.usedBytes).toBe(STREAM_SHARE_BYTES);
    expect((await read(answer)).bytes.equals(big)).toBe(true);
    lease.release();
    expect(budget.usedBytes).toBe(0);
  });

  it('BlobPull sets nothing more aside when the source of a stream changes', async () => {
    const budget = new ByteBudget({ limitBytes: STREAM_SHARE_BYTES });
    const { pull } = scene(
      [
        { node: 'a', bytes: big, breaksAfter: 500_000 },
        { node: 'b', bytes: big },
      ],
      {
        budget,
      },
    );
    const { request } = ask(budget, refusing(), { policy: { peers: 'prefer' } });
    const got = await get(pull, request, big);
    expect([got.status, got.bytes.equals(big)]).toEqual([200, true]);
    expect(budget.usedBytes).toBe(STREAM_SHARE_BYTES);
  });

  it('BlobPull answers that it is busy at once, and lets the source go', async () => {
    const budget = new ByteBudget({ limitBytes: STREAM_SHARE_BYTES });
    const { pull } = scene([], { budget });
    const { upstream, stopped } = watched(big);
    const first = await pull.answer(ask(budget, upstream).request, digestOf(big));
    const second = ask(budget, upstream);
    const answer = await pull.answer(second.request, digestOf(big));
    expect(answer).toMatchObject({ ...busy, decision: 'busy' });
    expect(message(await read(answer))).toContain('too many bytes in flight');
    expect(stopped()).toBe(1);
    second.lease.release();
    expect(budget.usedBytes).toBe(STREAM_SHARE_BYTES);
    if (!Buffer.isBuffer(first.body)) first.body?.cancel();
    expect(stopped()).toBe(2);
  });

  it('BlobPull lets a node go that it has no room for', async () => {
    const budget = new ByteBudget({ limitBytes: STREAM_SHARE_BYTES - 1 });
    const { agent, pull } = scene([{ node: 'a', bytes: big }], { budget });
    const answer = await pull.answer(ask(budget, refusing()).request, digestOf(big));
    expect(answer).toMatchObject(busy);
    expect(agent.reads.length).toBe(1);
    expect(budget.usedBytes).toBe(0);
  });

  it('BlobPull pays for a small blob until its request is over', async () => {
    const budget = new ByteBudget({ limitBytes: small.length });
    const { pull } = scene([], { budget });
    const { lease, request } = ask(budget, sending(small));
    expect((await get(pull, request, small)).bytes).toEqual(small);
    expect(budget.usedBytes).toBe(small.length);
    const second = ask(budget, sending(small));
    expect((await pull.answer(second.request, digestOf(small))).decision).toBe('busy');
    lease.release();
    const third = ask(budget, sending(small));
    expect((await get(pull, third.request, small)).bytes).toEqual(small);
  });

  it('BlobPull pays for what a source turns out to send more than another', async () => {
    const budget = new ByteBudget({ limitBytes: small.length });
    const right = { node: 'b', bytes: small };
    // Half of it, for a digest that it does not have.
    const short = { node: 'a', bytes: small.subarray(0, 2000) };
    const { pull } = scene([short, right], { budget });
    const { request } = ask(budget, refusing());
    expect((await get(pull, request, small)).bytes).toEqual(small);
    expect(budget.usedBytes).toBe(small.length);

    const tight = new ByteBudget({ limitBytes: small.length - 1 });
    const other = scene([short, right], { budget: tight });
    const refused = ask(tight, refusing());
    expect((await other.pull.answer(refused.request, digestOf(small))).decision).toBe('busy');
    refused.lease.release();
    expect(tight.usedBytes).toBe(0);
  });

  it('BlobPull pays for a HEAD only while it looks at the blob', async () => {
    const budget = new ByteBudget({ limitBytes: small.length });
    const { pull } = scene([{ node: 'a', bytes: small }], { budget });
    const head = async () =>
      pull.answer(ask(budget, refusing(), { method: 'HEAD' }).request, digestOf(small));
    expect(await head()).toMatchObject({ status: 200, decision: 'peer' });
    expect(budget.usedBytes).toBe(0);
    const other = budget.take(1);
    expect(await head()).toMatchObject({ ...busy, decision: 'busy' });
    other?.release();
    expect(budget.usedBytes).toBe(0);
  });

  it('BlobPull passes refusals on when there is no room for a byte', async () => {
    const budget = new ByteBudget({ limitBytes: 0 });
    const { pull } = scene([], { budget });
    const failing = new FakeUpstream(() => Promise.reject(down));
    const missing = await pull.answer(ask(budget, failing).request, digestOf(randomBytes(4)));
    expect(missing).toMatchObject({ status: 503, decision: 'unavailable' });
  });
});
