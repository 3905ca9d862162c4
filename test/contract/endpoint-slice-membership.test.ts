import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EndpointSliceMembership } from '../../src/discovery/endpoint-slice-membership.ts';
import { MemberList } from '../../src/discovery/member-list.ts';
import type { Family } from '../../src/discovery/own-address.ts';
import { API_CALLS } from '../../src/kubernetes/api-calls.ts';
import { KubeApi } from '../../src/kubernetes/kube-api.ts';
import { silentLogger, type LogFields } from '../../src/telemetry/logger.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FakeKubeApi, sendStatus, type FakeObject } from '../support/fake-kube-api.ts';
import { TestScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const minuteMs = 60_000;
let scope: TestScope;
let server: FakeKubeApi;

beforeEach(async () => {
  scope = await TestScope.open('slices');
  server = await FakeKubeApi.start(scope);
});

afterEach(async () => {
  await scope[Symbol.asyncDispose]();
});

interface EndpointOptions {
  readonly ready?: boolean;
  readonly zone?: string;
}

/** A slice as the API server's controller makes it, of nodes whose names end in their address. */
function slice(
  name: string,
  nodes: Readonly<Record<string, string>>,
  options: EndpointOptions & { readonly service?: string; readonly family?: Family } = {},
): FakeObject {
  const { service = 'salvor', family = 'IPv4', ready = true, zone } = options;
  return {
    metadata: { name, namespace: 'ns', labels: { 'kubernetes.io/service-name': service } },
    addressType: family,
    ports: [{ name: 'peers', port: 7490, protocol: 'TCP' }],
    endpoints: Object.entries(nodes).map(([nodeName, address]) => ({
      addresses: [address],
      nodeName,
      conditions: { ready, serving: ready, terminating: false },
      ...(zone === undefined ? {} : { zone }),
    })),
  };
}

/** A membership that follows the server; time stands still unless the test turns it. */
function follow(options: { family?: Family } = {}) {
  const clock = new FakeClock();
  const list = new MemberList(
    { isSelf: ({ name }) => name === 'me', maxMembers: 1000 },
    { clock, log: silentLogger },
  );
  const troubles: string[] = [];
  const waits: unknown[] = [];
  const log = { ...silentLogger, warn: ({ waitMs }: LogFields) => void waits.push(waitMs) };
  const access = { url: new URL(server.url), namespace: 'ns', requestOptions: async () => ({}) };
  const api = new KubeApi(
    { timeoutMs: 5000 },
    { connect: async () => access, calls: API_CALLS.agent },
  );
  const membership = new EndpointSliceMembership(
    { namespace: 'ns', service: 'salvor', family: options.family ?? 'IPv4', defaultPort: 7490 },
    {
      api,
      list,
      clock,
      random: () => 0.5,
      log,
      onTrouble: (kind) => void troubles.push(kind),
    },
  );
  scope.defer(() => membership.stop());
  membership.start();
  const names = (): string =>
    list
      .members()
      .map(({ name }) => name)
      .join();
  return {
    list,
    clock,
    troubles,
    waits,
    membership,
    names,
    until: (expected: string) =>
      waitFor(() => names() === expected, { what: expected, detail: () => `seen: ${names()}` }),
    /** Turns the time, bit by bit, until something is so. */
    pass: (done: () => boolean, stepMs = 1000) =>
      waitFor(() => {
        if (done()) return true;
        clock.advance(stepMs);
        return false;
      }),
  };
}

const isWatched = (): Promise<unknown> => waitFor(() => server.openWatches === 1);

describe('EndpointSliceMembership', () => {
  test('EndpointSliceMembership lists once, and follows every change', async () => {
    server.put('endpointslices', slice('s1', { a: '10.0.0.1', me: '10.0.0.9' }, { zone: 'z' }));
    server.put('endpointslices', slice('x1', { x: '10.0.1.1' }, { service: 'other' }));
    const { until, clock, list } = follow();
    await until('a');
    expect(list.members()).toEqual([{ name: 'a', address: '10.0.0.1:7490', zone: 'z' }]);
    await isWatched();
    server.put('endpointslices', slice('s1', { a: '10.0.0.1', b: '10.0.0.2' }, { ready: false }));
    await until('a,b');
    server.put('endpointslices', slice('s1', { b: '10.0.0.3' }));
    await until('b,a');
    clock.advance(15_000);
    await until('b');
    expect(list.members()).toEqual([{ name: 'b', address: '10.0.0.3:7490' }]);
    expect(server.calls).toEqual(['list endpointslices', 'watch endpointslices']);
    const [first, second] = server.queries;
    expect(first?.get('labelSelector')).toBe('kubernetes.io/service-name=salvor');
    expect(first?.get('resourceVersion')).toBe('0');
    expect(second?.get('allowWatchBookmarks')).toBe('true');
    expect(second?.get('timeoutSeconds')).toBe('450');
  });

  test('EndpointSliceMembership loses no change when its watch is cut or ends', async () => {
    server.put('endpointslices', slice('s1', { a: '10.0.0.1' }));
    const { until, pass, clock, troubles } = follow();
    await until('a');
    for (const [how, name] of [
      ['cut', 'b'],
      ['end', 'c'],
    ] as const) {
      await isWatched();
      clock.advance(minuteMs);
      server.endWatches(how);
      server.put(
        'endpointslices',
        slice(`s-${name}`, { [name]: `10.0.0.${name === 'b' ? 2 : 3}` }),
      );
      await pass(() => server.openWatches === 1, 100);
      await until(name === 'b' ? 'a,b' : 'a,b,c');
    }
    // It went on where it was: no second list.
    expect(server.calls.filter((call) => call.startsWith('list'))).toHaveLength(1);
    expect(troubles).toEqual(['watch']);
  });

  test('EndpointSliceMembership goes on from the last bookmark', async () => {
    server.put('endpointslices', slice('s1', { a: '10.0.0.1' }));
    const { until, pass, clock, list } = follow();
    await until('a');
    await isWatched();
    clock.advance(5 * minuteMs);
    server.bookmark();
    await waitFor(() => list.status().confirmedAtMs === clock.now());
    server.endWatches('end');
    await pass(() => server.calls.length === 3);
    expect(server.queries[2]?.get('resourceVersion')).toBe(String(server.version));
  });

  test.each(['gone', 'compacted'] as const)(
    'EndpointSliceMembership lists anew when its version is too old: %s',
    async (how) => {
      server.put('endpointslices', slice('s1', { a: '10.0.0.1' }));
      server.put('endpointslices', slice('s2', { old: '10.0.0.8' }));
      const { until, pass, names, troubles } = follow();
      await until('a,old');
      await isWatched();
      if (how === 'gone') server.failNext.push((response) => sendStatus(response, 410, 'Gone'));
      server.endWatches('cut');
      await waitFor(() => server.openWatches === 0);
      server.remove('endpointslices', 'ns', 's2');
      server.put('endpointslices', slice('s1', { a: '10.0.0.1', b: '10.0.0.2' }));
      server.compact();
      await pass(() => names() === 'a,b');
      expect(troubles).toEqual(['watch', 'expired']);
      // What the server has at hand may be older than what it had forgotten.
      const lists = server.queries.filter((_, n) => server.calls[n]?.startsWith('list'));
      expect(lists.map((query) => query.get('resourceVersion'))).toEqual(['0', null]);
    },
  );

  test('EndpointSliceMembership keeps its members while the API server is gone for an hour', async () => {
    server.put('endpointslices', slice('s1', { a: '10.0.0.1', b: '10.0.0.2' }));
    const { until, names, clock, list, troubles } = follow();
    await until('a,b');
    await isWatched();
    const lostMs = clock.now();
    await server.stop();
    let tries = 0;
    while (clock.now() - lostMs < 60 * minuteMs) {
      await clock.untilSleeping();
      // The watch's own end sleeps, too: only the wait between tries counts.
      await waitFor(() => troubles.length > tries);
      tries = troubles.length;
      clock.advance(minuteMs);
      expect(names()).toBe('a,b');
    }
    expect(tries).toBeGreaterThan(50);
    expect(list.status()).toMatchObject({ confirmedAtMs: lostMs, kept: 0 });
    expect(list.status().trouble).toContain('ECONNREFUSED');
    server.put('endpointslices', slice('s1', { b: '10.0.0.2', c: '10.0.0.3' }));
    server.compact();
    await server.listen();
    await waitFor(() => {
      clock.advance(minuteMs);
      return names() === 'b,c';
    });
    expect(list.status().trouble).toBeUndefined();
  });

  test('EndpointSliceMembership waits longer and longer, up to a minute', async () => {
    server.failNext.push(...Array.from({ length: 8 }, () => refuse));
    const { clock, waits } = follow();
    await waitFor(() => {
      clock.advance(60_000);
      return waits.length === 8;
    });
    // The chance of this test makes them three quarters of 1, 2, 4, … s.
    expect(waits).toEqual([750, 1500, 3000, 6000, 12_000, 24_000, 45_000, 45_000]);
  });

  test('EndpointSliceMembership waits as long as a busy API server says', async () => {
    server.failNext.push((response) => {
      response.setHeader('retry-after', '30');
      sendStatus(response, 429, 'TooManyRequests');
    });
    const { clock, troubles } = follow();
    await waitFor(() => troubles.length === 1 && clock.sleeping === 1);
    clock.advance(29_999);
    expect(clock.sleeping).toBe(1);
    clock.advance(1);
    await waitFor(() => server.openWatches === 1);
  });

  test('EndpointSliceMembership begins anew with a server that was restored from a backup', async () => {
    for (let n = 0; n < 20; n += 1) server.put('endpointslices', slice('s1', { a: `10.0.1.${n}` }));
    const { until, pass, names } = follow();
    await until('a');
    await isWatched();
    server.restore();
    server.put('endpointslices', slice('s2', { b: '10.0.0.2' }));
    server.endWatches('cut');
    await pass(() => names() === 'a,b');
  });

  test('EndpointSliceMembership gives up a watch that has fallen silent', async () => {
    server.put('endpointslices', slice('s1', { a: '10.0.0.1' }));
    const { until, clock } = follow();
    await until('a');
    await isWatched();
    clock.advance(450_000 + 30_000);
    await waitFor(() => {
      clock.advance(1000);
      return server.calls.length === 3;
    });
    expect(server.calls.at(-1)).toBe('watch endpointslices');
  });

  test('EndpointSliceMembership does not ask faster when watches end at once, or flap', async () => {
    server.put('endpointslices', slice('s1', { a: '10.0.0.1' }));
    const { until, clock } = follow();
    await until('a');
    for (let round = 0; round < 5; round += 1) {
      await isWatched();
      if (round % 2 === 0) server.put('endpointslices', slice('s1', { a: `10.0.0.${round + 2}` }));
      server.endWatches('end');
      await waitFor(() => server.openWatches === 0);
      const { length } = server.calls;
      await waitFor(() => clock.sleeping === 1);
      clock.advance(499);
      expect(server.calls.length).toBe(length);
      await waitFor(() => {
        clock.advance(500);
        return server.calls.length > length;
      });
    }
  });

  test('EndpointSliceMembership keeps its members when the list comes empty', async () => {
    server.put('endpointslices', slice('s1', { a: '10.0.0.1', b: '10.0.0.2' }));
    const { until, names, clock, list } = follow();
    await until('a,b');
    await isWatched();
    server.remove('endpointslices', 'ns', 's1');
    await waitFor(() => list.status().kept === 2);
    clock.advance(5 * minuteMs);
    expect(names()).toBe('a,b');
    server.put('endpointslices', slice('s1', { b: '10.0.0.2' }));
    await until('b');
  });

  test('EndpointSliceMembership is not shaken by slices that are split anew', async () => {
    const nodes = Array.from({ length: 200 }, (_, n) => `n${String(n).padStart(3, '0')}`);
    const part = (from: number, to: number): Record<string, string> =>
      Object.fromEntries(nodes.slice(from, to).map((name, n) => [name, `10.1.0.${from + n}`]));
    server.put('endpointslices', slice('s1', part(0, 100)));
    server.put('endpointslices', slice('s2', part(100, 200)));
    const { until, list, names } = follow();
    await until(nodes.join());
    await isWatched();
    // First nodes are named twice, then for a moment not at all.
    server.put('endpointslices', slice('s3', part(50, 150)));
    server.put('endpointslices', slice('s1', part(0, 50)));
    server.remove('endpointslices', 'ns', 's3');
    server.put('endpointslices', slice('s4', part(40, 100)));
    server.put('endpointslices', slice('s5', { last: '10.2.0.1' }));
    await waitFor(() => names().includes('last'));
    expect(list.status()).toMatchObject({ count: 201, kept: 0 });
  });

  test.each([
    ['IPv4', '10.0.0.1:7490'],
    ['IPv6', '[fd00::1]:7490'],
  ] as const)(
    'EndpointSliceMembership has one member of a node with two stacks: %s',
    async (family, address) => {
      server.put('endpointslices', slice('s6', { a: 'fd00::1', b: 'fd00::2' }, { family: 'IPv6' }));
      server.put('endpointslices', slice('s4', { a: '10.0.0.1' }));
      const { until, list } = follow({ family });
      await until('a,b');
      expect(list.members()).toEqual([
        { name: 'a', address },
        { name: 'b', address: '[fd00::2]:7490' },
      ]);
    },
  );

  test('EndpointSliceMembership works with the rights that API_CALLS names, and needs them all', async () => {
    const declared = API_CALLS.agent.flatMap(({ resource, verbs }) =>
      verbs.map((verb) => `${verb} ${resource}`),
    );
    server.granted = new Set(declared);
    server.put('endpointslices', slice('s1', { a: '10.0.0.1' }));
    const { until, troubles } = follow();
    await until('a');
    await isWatched();
    expect(troubles).toEqual([]);
    expect(new Set(server.calls)).toEqual(new Set(declared));
  });

  test('EndpointSliceMembership ends at any moment', async () => {
    const { membership } = follow();
    await membership.stop();
    server.failNext.push(refuse);
    const waiting = follow();
    await waitFor(() => waiting.clock.sleeping === 1);
    await waiting.membership.stop();
    const watching = follow();
    await isWatched();
    await watching.membership.stop();
    await waitFor(() => server.openWatches === 0);
  });
});

const refuse: (typeof FakeKubeApi.prototype.failNext)[number] = (response) =>
  sendStatus(response, 503, 'ServiceUnavailable');
