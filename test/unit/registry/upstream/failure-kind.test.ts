import type { LookupFunction } from 'node:net';
import { describe, expect, it } from 'vitest';
import { AddressGuard } from '../../../../src/policy/address-guard.ts';
import { EndpointOutcomes } from '../../../../src/registry/upstream/endpoint-outcomes.ts';
import { errors } from '../../../../src/registry/upstream/undici.ts';
import { UpstreamFailure } from '../../../../src/registry/upstream/upstream-failure.ts';
import { expectNoLeaks } from '../../../support/no-leaks.ts';
import { waitFor } from '../../../support/wait.ts';
import { responseOf } from './fake-response.ts';
import { closedAfterwards, endpointOf, serve, textOf } from './upstream-scene.ts';

expectNoLeaks();

const withCode = (code: string): Error => Object.assign(new Error(`connect ${code}`), { code });
const kindOf = (error: unknown, signal?: AbortSignal): string =>
  UpstreamFailure.from(error, 'registry.test', signal).kind;

const shortages = ['EMFILE', 'ENFILE', 'EADDRNOTAVAIL', 'ENOBUFS', 'ENOMEM', 'EAI_MEMORY'];
const refusals = ['EPERM', 'EACCES'];

describe('UpstreamFailure.from', () => {
  it.each([...shortages, ...refusals])(
    'UpstreamFailure.from takes %s for the word of this machine, not of the upstream',
    (code) => {
      const failure = UpstreamFailure.from(withCode(code), 'registry.test');
      expect(failure).toMatchObject({ kind: 'local', isOutageSign: false });
      expect(failure.message).toMatch(/^registry\.test was not asked: this (machine|process) /);
      expect(failure.message).toContain(`(${code})`);
    },
  );

  it('UpstreamFailure.from believes the address that got furthest', () => {
    const [none, refused] = [withCode('EADDRNOTAVAIL'), withCode('ECONNREFUSED')];
    expect(kindOf(new AggregateError([none, refused]))).toBe('refused');
    expect(kindOf(new AggregateError([refused, none]))).toBe('refused');
    expect(kindOf(new AggregateError([none, withCode('EMFILE')]))).toBe('local');
    expect(kindOf(new AggregateError([withCode('ENETUNREACH'), withCode('ETIMEDOUT')]))).toBe(
      'refused',
    );
    expect(kindOf(new AggregateError([]))).toBe('reset');
  });

  it('UpstreamFailure.from calls nothing cancelled that no signal of ours has ended', () => {
    const leaving = new AbortController();
    const ours = new DOMException('gone', 'AbortError');
    expect(kindOf(new errors.RequestAbortedError('undici has its own'))).toBe('reset');
    expect(kindOf(ours, leaving.signal)).toBe('reset');
    leaving.abort(ours);
    expect(kindOf(ours, leaving.signal)).toBe('cancelled');
    // Where a request has been left before it was sent.
    expect(kindOf(ours)).toBe('cancelled');
    expect(kindOf(new DOMException('late', 'TimeoutError'), leaving.signal)).toBe('timeout');
  });

  it.each(['text', undefined, null, 7])('UpstreamFailure.from takes anything thrown: %s', (odd) => {
    expect(kindOf(odd)).toBe('reset');
  });
});

/** Leads every name to this machine, until it is told of an error. */
function guardWith(state: { code: string | undefined }): AddressGuard {
  const guard = new AddressGuard(['127.0.0.0/8']);
  const lookup: LookupFunction = (_, options, callback) => {
    if (state.code !== undefined) callback(withCode(state.code), '', 0);
    else if (options.all === true) callback(null, [{ address: '127.0.0.1', family: 4 }]);
    else callback(null, '127.0.0.1', 4);
  };
  return Object.assign(guard, { lookup });
}

const question = { method: 'GET', path: '/v2/a/manifests/1', headers: {} } as const;

describe('Endpoint on a machine that is short of something', () => {
  it('Endpoint takes no number of own shortages for an outage, and adds no attempts to them', async () => {
    const state = { code: 'EMFILE' };
    const endpoint = closedAfterwards(
      endpointOf('http://registry.test', { guard: guardWith(state) }),
    );
    for (let round = 0; round < 4; round += 1) {
      let troubles = 0;
      const asked = endpoint.ask(question, {
        signal: new AbortController().signal,
        onTrouble: () => (troubles += 1),
      });
      await expect(asked).rejects.toMatchObject({ kind: 'local', isProven: false });
      expect(troubles).toBe(1);
    }
    expect(endpoint.outage).toBeUndefined();
  });

  it('Endpoint that is slow is waited for though nobody here can look at it', async () => {
    const state: { code: string | undefined } = { code: undefined };
    const slow = Promise.withResolvers<undefined>();
    const server = await serve((_, response) => {
      void slow.promise.then(() => response.end('late'));
    });
    let looks = 0;
    const guard = guardWith(state);
    const { lookup } = guard;
    const counting: LookupFunction = (...parameters) => {
      looks += 1;
      lookup(...parameters);
    };
    const endpoint = closedAfterwards(
      endpointOf(`http://registry.test:${server.port}`, {
        guard: Object.assign(guard, { lookup: counting }),
      }),
    );
    const asked = endpoint.ask(question, { signal: new AbortController().signal });
    await waitFor(() => server.requests.length === 1);
    state.code = 'ENFILE';
    await waitFor(() => looks === 2, { what: 'a look' });
    // Longer than a second look would wait for.
    setTimeout(() => slow.resolve(undefined), 150);
    expect(await textOf(await asked)).toBe('late');
  });
});

describe('EndpointOutcomes on a machine that is short of something', () => {
  it('EndpointOutcomes takes one that could not be asked for one that may have it', () => {
    const outcomes = new EndpointOutcomes();
    outcomes.failed(UpstreamFailure.from(withCode('EMFILE'), 'a.test'));
    const missing = responseOf({ status: 404 });
    outcomes.answered(missing, { host: 'b.test', judgesClients: true });
    expect(() => outcomes.conclude()).toThrow('a.test was not asked');
  });
});
