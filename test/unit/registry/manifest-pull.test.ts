import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../src/oci/digest.ts';
import { UpstreamFailure } from '../../../src/registry/upstream/upstream-failure.ts';
import { FakeUpstream, plentyOfBytes, pullRequest } from './fake-sources.ts';
import {
  NOW_MS,
  mediaType,
  indexType,
  config,
  bytes,
  digest,
  index,
  proven,
  unproven,
  failing,
  headersOf,
  giving,
  everything,
  scene,
  byTag,
  byDigest,
  confirmed,
  message,
} from './manifest-pull-scene.ts';
import { cutBody, responseOf } from './upstream/fake-response.ts';

describe('ManifestPull by digest', () => {
  it('ManifestPull gives a manifest of its upstream, and again from memory', async () => {
    const upstream = giving(bytes);
    const { pull } = scene();
    const first = await pull.answer(pullRequest(upstream), byDigest);
    expect(first).toMatchObject({
      status: 200,
      body: bytes,
      headers: {
        'content-type': mediaType,
        'content-length': bytes.length,
        'docker-content-digest': digest,
        'salvor-source': 'upstream',
      },
    });
    const second = await pull.answer(pullRequest(upstream, { method: 'HEAD' }), byDigest);
    expect(second).toMatchObject({ status: 200, headers: { 'salvor-source': 'memory' } });
    expect(second.body).toBeUndefined();
    expect(upstream.asked.length).toBe(1);
  });

  it('ManifestPull tells of every manifest that goes to the client, from wherever', async () => {
    const { pull, passed } = scene([bytes]);
    await pull.answer(pullRequest(giving(bytes), { method: 'HEAD' }), byDigest);
    expect(passed).toEqual([]);
    await pull.answer(pullRequest(failing(unproven)), byDigest);
    await pull.answer(pullRequest(failing(unproven)), byDigest);
    await pull.answer(pullRequest(giving(bytes)), byDigest);
    expect(passed).toEqual([digest, digest, digest]);
  });

  it('ManifestPull does not give one client what the upstream gave another', async () => {
    const upstream = giving(bytes);
    const { pull } = scene();
    await pull.answer(pullRequest(upstream, { authorization: 'Bearer one' }), byDigest);
    await pull.answer(pullRequest(upstream, { authorization: 'Bearer two' }), byDigest);
    await pull.answer(pullRequest(upstream), byDigest);
    expect(upstream.asked.map(({ headers }) => headers['authorization'])).toEqual([
      'Bearer one',
      'Bearer two',
      undefined,
    ]);
  });

  it('ManifestPull gives a manifest of a node when the upstream fails or has it no more', async () => {
    const gone = new FakeUpstream(() => responseOf({ status: 404 }));
    for (const upstream of [failing(unproven), gone]) {
      const { pull } = scene([bytes]);
      const answer = await pull.answer(pullRequest(upstream), byDigest);
      expect(answer).toMatchObject({
        status: 200,
        body: bytes,
        headers: { 'salvor-source': 'node/n0', 'content-type': mediaType },
      });
    }
  });

  it('ManifestPull gives a right manifest of a node where the upstream gives a wrong one', async () => {
    const { pull } = scene([bytes]);
    const wrong = new FakeUpstream(() =>
      responseOf({ headers: { 'content-type': mediaType }, body: Buffer.from('{}') }),
    );
    const answer = await pull.answer(pullRequest(wrong), byDigest);
    expect(answer).toMatchObject({ body: bytes, headers: { 'salvor-source': 'node/n0' } });
  });

  it('ManifestPull answers 404 or 503 when nobody has it, and says why', async () => {
    const { pull } = scene();
    const gone = new FakeUpstream(() => responseOf({ status: 404 }));
    expect((await pull.answer(pullRequest(gone), byDigest)).status).toBe(404);
    const down = await pull.answer(pullRequest(failing(unproven)), byDigest);
    expect(down.status).toBe(503);
    expect(message(down)).toContain('reset the connection');
    const cut = new FakeUpstream(() =>
      responseOf({ headers: headersOf(bytes), body: cutBody(bytes.subarray(0, 5)) }),
    );
    const broken = await pull.answer(pullRequest(cut), byDigest);
    expect([broken.status, message(broken)]).toEqual([503, expect.stringContaining('broke off')]);
  });
});

describe('ManifestPull by tag', () => {
  it('ManifestPull asks its upstream, never a node, and has the answer remembered', async () => {
    const { pull, agent } = scene([bytes]);
    agent.tags = [confirmed(Buffer.from('another'))];
    const answer = await pull.answer(pullRequest(giving(bytes), { method: 'HEAD' }), byTag);
    expect(answer.headers).toMatchObject({
      'docker-content-digest': digest,
      'content-length': bytes.length,
      'salvor-source': 'upstream',
    });
    expect(answer.headers).not.toHaveProperty('salvor-observed-at');
    expect(agent.observed).toEqual([`registry.test/team/app:1 ${digest} ${NOW_MS}`]);
    expect(agent.reads).toEqual([]);
  });

  it('ManifestPull answers from nodes after a proof, and says since when that is so', async () => {
    const { pull, agent } = scene([bytes, config]);
    agent.tags = [confirmed(bytes)];
    for (const method of ['HEAD', 'GET'] as const) {
      const answer = await pull.answer(pullRequest(failing(proven), { method }), byTag);
      expect(answer).toMatchObject({
        status: 200,
        decision: 'offline_tag',
        headers: {
          'docker-content-digest': digest,
          'content-length': bytes.length,
          'content-type': mediaType,
          'salvor-observed-at': new Date(NOW_MS).toISOString(),
        },
      });
      expect(answer.body).toEqual(method === 'GET' ? bytes : undefined);
    }
    expect(agent.observed).toEqual([]);
  });

  it('ManifestPull answers no tag from nodes without a proof', async () => {
    const { pull, agent } = scene([bytes, config]);
    agent.tags = [confirmed(bytes)];
    const answer = await pull.answer(pullRequest(failing(unproven)), byTag);
    expect([answer.status, agent.reads.length]).toEqual([503, 0]);
  });

  it('ManifestPull does not ask an upstream first that is known to be down', async () => {
    const { pull, agent } = scene([bytes, config]);
    agent.tags = [confirmed(bytes)];
    const upstream = failing(proven);
    upstream.outage = { sinceMs: NOW_MS, cause: proven };
    expect((await pull.answer(pullRequest(upstream), byTag)).status).toBe(200);
    expect(upstream.asked).toEqual([]);
    // What nodes do not know it is asked for all the same.
    agent.tags = [];
    expect((await pull.answer(pullRequest(upstream), { tag: '2' })).status).toBe(503);
    expect(upstream.asked.length).toBe(1);
  });

  it('ManifestPull asks nodes once in a while for a tag that many want in an outage', async () => {
    const { pull, agent } = scene([bytes, config]);
    agent.tags = [confirmed(bytes)];
    const upstream = failing(proven);
    upstream.outage = { sinceMs: NOW_MS, cause: proven };
    const first = await pull.answer(pullRequest(upstream), byTag);
    const lookups = agent.lookups.length;
    const again = await pull.answer(pullRequest(upstream), byTag);
    expect(again).toMatchObject({ status: 200, body: bytes, decision: 'offline_tag' });
    expect(again.headers).toEqual({ ...first.headers, 'salvor-source': 'memory' });
    expect([lookups > 0, agent.lookups.length]).toEqual([true, lookups]);
    // A bound on the age, and another outage, have them asked anew.
    const policy = { staleMaxAgeMs: 3_600_000 };
    await pull.answer(pullRequest(upstream, { policy }), byTag);
    expect(agent.lookups.length).toBeGreaterThan(lookups);
    agent.tags = [];
    upstream.outage = { sinceMs: NOW_MS + 1, cause: proven };
    expect((await pull.answer(pullRequest(upstream), byTag)).status).toBe(503);
  });

  it('ManifestPull answers a rate limit from nodes, else with 503 and the time to wait', async () => {
    const limited = new UpstreamFailure('rate_limited', 'limited', { retryAfter: '9' });
    const { pull, agent } = scene([bytes, config]);
    const nobody = await pull.answer(pullRequest(failing(limited)), byTag);
    expect([nobody.status, nobody.headers['retry-after']]).toEqual([503, '9']);
    agent.tags = [confirmed(bytes)];
    expect((await pull.answer(pullRequest(failing(limited)), byTag)).status).toBe(200);
  });

  it.each([
    ['no statement at all', { tags: [], held: everything }],
    ['no manifest', { tags: [confirmed(bytes)], held: [config] }],
    ['no config', { tags: [confirmed(bytes)], held: [bytes] }],
    ['no manifest for this platform', { tags: [confirmed(index, indexType)], held: [index] }],
    [
      'the newest only by name, an older one in full',
      {
        tags: [confirmed(bytes), confirmed(Buffer.from('newer'), mediaType, NOW_MS + 1000)],
        held: everything,
      },
    ],
  ])('ManifestPull answers no tag of which nodes have %s', async (_, { tags, held }) => {
    const { pull, agent } = scene(held);
    agent.tags = tags;
    const answer = await pull.answer(pullRequest(failing(proven)), byTag);
    expect(answer.status).toBe(503);
    expect(message(answer)).toMatch(/no node/);
  });

  it('ManifestPull answers a tag whose index, manifest and config nodes have', async () => {
    const { pull, agent } = scene([index, bytes, config]);
    agent.tags = [confirmed(index, indexType)];
    const answer = await pull.answer(pullRequest(failing(proven)), byTag);
    expect(answer).toMatchObject({ status: 200, body: index });
    expect(answer.headers['content-type']).toBe(indexType);
  });

  it('ManifestPull has the manifest of a tag from whoever named it, and looks for no other', async () => {
    const { pull, agent } = scene([bytes, config], plentyOfBytes(), { n0: [confirmed(bytes)] });
    const answer = await pull.answer(pullRequest(failing(proven)), byTag);
    expect(answer).toMatchObject({ status: 200, body: bytes });
    expect(answer.headers['salvor-source']).toBe('node/n0');
    expect(agent.lookups).toEqual([
      { name: 'registry.test/team/app:1' },
      { digest: digestOf(config) },
    ]);
  });

  it('ManifestPull takes no node for unable whose tag has a wrong size', async () => {
    const tag = { ...confirmed(bytes), sizeBytes: bytes.length + 1 };
    const { pull, agent } = scene([bytes, config], plentyOfBytes(), { n0: [tag] });
    const answer = await pull.answer(pullRequest(failing(proven)), byTag);
    expect(answer).toMatchObject({ status: 200, body: bytes });
    expect(agent.lookups).toContainEqual({ digest });
  });

  it('ManifestPull waits once for whoever named a tag and sends nothing', async () => {
    const tags = { n0: [confirmed(bytes)] };
    const { pull, agent } = scene([bytes, config], plentyOfBytes(), tags, ['n0']);
    const answer = await pull.answer(pullRequest(failing(proven)), byTag);
    expect([answer.status, agent.reads.length]).toEqual([503, 1]);
  });

  it.each([
    ['no longer has it', 'another manifest', []],
    ['gives wrong bytes', '?'.repeat(bytes.length), ['n0']],
  ])('ManifestPull looks for a manifest where whoever named it %s', async (_, held, reported) => {
    const contents = [Buffer.from(held), bytes, config];
    const { pull, agent } = scene(contents, plentyOfBytes(), { n0: [confirmed(bytes)] });
    const answer = await pull.answer(pullRequest(failing(proven)), byTag);
    expect(answer).toMatchObject({ status: 200, body: bytes });
    expect(answer.headers['salvor-source']).toBe('node/n1');
    expect(agent.reported).toEqual(reported);
  });

  it('ManifestPull takes a registry that never answered anybody for misconfigured', async () => {
    const { pull, agent } = scene([bytes, config]);
    agent.tags = [confirmed(bytes)];
    agent.registrySeen = false;
    const upstream = failing(proven);
    upstream.hasAnswered = false;
    const answer = await pull.answer(pullRequest(upstream), byTag);
    expect([answer.status, message(answer)]).toEqual([503, expect.stringContaining('no outage')]);
  });

  it('ManifestPull keeps to what policy says about stale tags', async () => {
    for (const policy of [
      { staleOn: ['5xx'] },
      { staleMaxAgeMs: 4000 },
      { access: 'online' },
      { mode: 'observe' },
    ] as const) {
      const { pull, agent } = scene([bytes, config]);
      agent.tags = [confirmed(bytes)];
      const answer = await pull.answer(pullRequest(failing(proven), { policy }), byTag);
      expect([policy, answer.status]).toEqual([policy, 503]);
    }
  });

  it('ManifestPull keeps a tag withdrawn that the upstream has withdrawn', async () => {
    const gone = (): FakeUpstream => new FakeUpstream(() => responseOf({ status: 404 }));
    const { pull, agent } = scene([bytes, config]);
    agent.tags = [confirmed(bytes)];
    expect((await pull.answer(pullRequest(gone()), byTag)).status).toBe(404);
    const policy = { staleOn: ['gone'] };
    expect((await pull.answer(pullRequest(gone(), { policy }), byTag)).status).toBe(200);
  });

  it('ManifestPull gives the manifest of a node that its upstream names and cannot give', async () => {
    const upstream = new FakeUpstream(({ method }) =>
      method === 'HEAD'
        ? responseOf({ headers: headersOf(bytes) })
        : responseOf({ headers: headersOf(bytes), body: cutBody(bytes.subarray(0, 5)) }),
    );
    const { pull, agent } = scene([bytes]);
    const answer = await pull.answer(pullRequest(upstream), byTag);
    expect(answer).toMatchObject({ status: 200, body: bytes });
    expect(agent.observed.length).toBe(1);
  });

  it('ManifestPull asks once for all who ask the same at the same time', async () => {
    const held = Promise.withResolvers<undefined>();
    const upstream = new FakeUpstream(async () => {
      await held.promise;
      return responseOf({ headers: headersOf(bytes), body: bytes });
    });
    const { pull } = scene();
    const same = [pullRequest(upstream), pullRequest(upstream), pullRequest(upstream)];
    const other = pullRequest(upstream, { authorization: 'Bearer other' });
    const answers = Promise.all([...same, other].map((request) => pull.answer(request, byTag)));
    held.resolve(undefined);
    expect((await answers).map(({ status }) => status)).toEqual([200, 200, 200, 200]);
    expect(upstream.asked.length).toBe(2);
  });

  it('ManifestPull does not let an upstream that was configured anew wait for the old one', async () => {
    const held = Promise.withResolvers<undefined>();
    const old = new FakeUpstream(async () => {
      await held.promise;
      return responseOf({ status: 404 });
    });
    const { pull } = scene();
    const early = pull.answer(pullRequest(old), byTag);
    const late = await pull.answer(pullRequest(giving(bytes)), byTag);
    held.resolve(undefined);
    expect([late.status, (await early).status]).toEqual([200, 404]);
  });

  it('ManifestPull passes a refusal on as it is', async () => {
    const challenge = { 'www-authenticate': 'Bearer realm="https://auth.test/"' };
    const upstream = new FakeUpstream(() => responseOf({ status: 401, headers: challenge }));
    const answer = await scene().pull.answer(pullRequest(upstream), byTag);
    expect(answer).toMatchObject({ status: 401, headers: challenge });
  });
});
