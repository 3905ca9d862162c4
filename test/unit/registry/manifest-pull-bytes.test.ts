import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../src/oci/digest.ts';
import type { Answer } from '../../../src/registry/answer.ts';
import { ByteBudget } from '../../../src/registry/byte-budget.ts';
import { FakeUpstream, pullRequest } from './fake-sources.ts';
import {
  indexType,
  config,
  bytes,
  index,
  proven,
  failing,
  headersOf,
  giving,
  everything,
  scene,
  byTag,
  byDigest,
  confirmed,
} from './manifest-pull-scene.ts';
import { cutBody, responseOf, stalledBody } from './upstream/fake-response.ts';

describe('ManifestPull and the bytes in flight', () => {
  const busy = { status: 503, decision: 'busy', headers: { 'retry-after': '1' } };
  /** Many manifests that an upstream sends and does not end. */
  const endless = (opened: { destroyed: boolean }[]): FakeUpstream =>
    new FakeUpstream((_, { signal }) => {
      const body = stalledBody(Buffer.alloc(5000, ' '));
      opened.push(body);
      signal.addEventListener('abort', () => body.destroy());
      return responseOf({ headers: headersOf(bytes), body });
    });

  it('ManifestPull reads no more than the budget has room for, however many are asked', async () => {
    const budget = new ByteBudget({ limitBytes: 50_000 });
    const { pull } = scene([], budget);
    const opened: { destroyed: boolean }[] = [];
    const upstream = endless(opened);
    const client = new AbortController();
    let highest = 0;
    const answers = Array.from({ length: 512 }, async (_, n) => {
      const lease = budget.open();
      const request = pullRequest(upstream, { lease, signal: client.signal });
      const answer = await pull.answer(request, { digest: digestOf(Buffer.from(`${n}`)) });
      highest = Math.max(highest, budget.usedBytes);
      lease.release();
      return answer;
    });
    const refused = await Promise.all(answers.slice(10));
    expect(refused.every(({ decision }) => decision === 'busy')).toBe(true);
    expect(highest).toBe(50_000);
    expect(opened.filter(({ destroyed }) => destroyed).length).toBe(502);
    client.abort();
    await Promise.all(answers);
    await expect.poll(() => budget.usedBytes).toBe(0);
    expect(opened.every(({ destroyed }) => destroyed)).toBe(true);
  });

  it.each([
    ['a tag', byTag],
    ['a digest', byDigest],
  ])('ManifestPull answers that it is busy when %s does not fit', async (_, reference) => {
    const budget = new ByteBudget({ limitBytes: bytes.length - 1 });
    const { pull } = scene(everything, budget);
    // Where the upstream has no room, a node would need as much.
    expect(await pull.answer(pullRequest(giving(bytes)), reference)).toMatchObject(busy);
    expect(budget.usedBytes).toBe(0);
  });

  it('ManifestPull answers that it is busy when what a node has does not fit', async () => {
    const budget = new ByteBudget({ limitBytes: bytes.length - 1 });
    const { agent, pull } = scene([bytes, config], budget);
    agent.tags = [confirmed(bytes)];
    for (const reference of [byTag, byDigest]) {
      expect(await pull.answer(pullRequest(failing(proven)), reference)).toMatchObject(busy);
    }
    expect(budget.usedBytes).toBe(0);
  });

  it('ManifestPull holds what it answers once, until the last of its requests is over', async () => {
    const budget = new ByteBudget({ limitBytes: bytes.length });
    const { pull } = scene([], budget);
    const leases = [budget.open(), budget.open(), budget.open()];
    const upstream = giving(bytes);
    const ask = async (lease = budget.open()): Promise<Answer> =>
      pull.answer(pullRequest(upstream, { lease }), byDigest);
    const [first, second] = await Promise.all([ask(leases[0]), ask(leases[1])]);
    expect([first.body, second.body]).toEqual([bytes, bytes]);
    expect(upstream.asked.length).toBe(1);
    expect(budget.usedBytes).toBe(bytes.length);
    // From memory: the very same bytes.
    expect(await ask(leases[2])).toMatchObject({ status: 200, decision: 'memory' });
    for (const lease of leases) {
      expect(budget.usedBytes).toBe(bytes.length);
      lease.release();
    }
    expect(budget.usedBytes).toBe(0);
  });

  it('ManifestPull gives back what wrong bytes and a broken body had taken', async () => {
    const budget = new ByteBudget({ limitBytes: 100_000 });
    const { pull } = scene([], budget);
    const wrong = new FakeUpstream(() => responseOf({ headers: headersOf(bytes), body: index }));
    const cut = new FakeUpstream(() =>
      responseOf({ headers: headersOf(bytes), body: cutBody(bytes.subarray(0, 10)) }),
    );
    for (const upstream of [wrong, cut]) {
      const answer = await pull.answer(pullRequest(upstream), byDigest);
      expect(answer.status).toBe(503);
      expect(answer.decision).not.toBe('busy');
      expect(budget.usedBytes).toBe(0);
    }
  });

  it('ManifestPull pays for all manifests that an offline tag needs', async () => {
    const budget = new ByteBudget({ limitBytes: index.length + bytes.length });
    const { agent, pull } = scene(everything, budget);
    agent.tags = [confirmed(index, indexType)];
    const lease = budget.open();
    const answer = await pull.answer(pullRequest(failing(proven), { lease }), byTag);
    expect(answer).toMatchObject({ status: 200, decision: 'offline_tag' });
    expect(budget.usedBytes).toBe(index.length + bytes.length);
    lease.release();
    expect(budget.usedBytes).toBe(0);
    // Now that they are in memory, as well.
    const again = budget.open();
    await pull.answer(pullRequest(failing(proven), { lease: again }), byTag);
    expect(budget.usedBytes).toBe(index.length + bytes.length);
    again.release();
    expect(budget.usedBytes).toBe(0);
  });
});
