import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Answer } from '../../../src/registry/answer.ts';
import { ByteBudget } from '../../../src/registry/byte-budget.ts';
import { DecisionLog } from '../../../src/registry/decision-log.ts';
import { DEFAULT_POLICY, Policies } from '../../../src/policy/policy.ts';
import type { PullRequest } from '../../../src/registry/pull-request.ts';
import { createRegistryMetrics } from '../../../src/registry/registry-metrics.ts';
import { RegistryServer } from '../../../src/registry/registry-server.ts';
import { RequestReports } from '../../../src/registry/request-reports.ts';
import { Savings } from '../../../src/registry/savings.ts';
import type { Upstream } from '../../../src/registry/upstream/upstream.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { expectNoLeaks } from '../../support/no-leaks.ts';
import { waitFor } from '../../support/wait.ts';
import { RawClient } from './raw-client.ts';

expectNoLeaks();

const path = '/v2/team/app/manifests/1';
const body = Buffer.from('{}');
const answer: Answer = {
  status: 200,
  headers: { 'content-length': body.length },
  body,
  decision: 'upstream',
};

let decisions: DecisionLog;
let held: string[];
let pulls: PullRequest[];
let respond: (pull: PullRequest) => Promise<Answer>;
let server: RegistryServer;
let client: RawClient;

function upstreamOf(name: string): Upstream {
  return { name, health: {}, recordSaved: () => undefined } as unknown as Upstream;
}

beforeEach(async () => {
  decisions = new DecisionLog({ maxEntries: 10 });
  held = [];
  pulls = [];
  respond = async () => answer;
  const metrics = createRegistryMetrics(new Registry(), {
    configured: () => [],
    upstreams: () => [],
  });
  const limits = {
    maxIdleConnections: 64,
    maxStreams: 10,
    maxManifestBytes: 1e6,
    manifestCacheBytes: 1e6,
    maxHeaderBytes: 4096,
    upstreamConnections: 1,
    clientStallMs: 5000,
  };
  server = new RegistryServer(
    { limits, defaultUpstream: 'a.test' },
    {
      upstreams: {
        get: upstreamOf,
        hold: ({ name }) => {
          held.push(name);
          return () => void held.splice(held.indexOf(name), 1);
        },
      },
      manifests: {
        answer: (pull) => {
          pulls.push(pull);
          return respond(pull);
        },
      },
      blobs: { answer: async () => answer },
      policies: new Policies([]),
      metrics,
      reports: new RequestReports({
        decisions,
        metrics,
        savings: new Savings({ metrics }),
        log: silentLogger,
      }),
      budget: new ByteBudget({ limitBytes: 1e6 }),
      log: silentLogger,
    },
  );
  const address = await server.listen('127.0.0.1:0');
  client = await RawClient.open(Number(address.split(':')[1]));
});

afterEach(async () => {
  client.close();
  await server.close({ signal: AbortSignal.abort() });
});

async function status(): Promise<number> {
  client.get(path);
  return (await client.answer()).status;
}

describe('RegistryServer', () => {
  it('RegistryServer routes new requests as it was told last', async () => {
    expect(await status()).toBe(200);
    const rule = { ...DEFAULT_POLICY, match: 'b.test/*', access: 'online' as const };
    server.reroute({ defaultUpstream: 'b.test', policies: new Policies([rule]) });
    expect(await status()).toBe(200);
    const bypass = { ...rule, mode: 'bypass' as const };
    server.reroute({ defaultUpstream: 'b.test', policies: new Policies([bypass]) });
    expect(await status()).toBe(404);
    server.reroute({ defaultUpstream: '', policies: new Policies([]) });
    expect(await status()).toBe(404);
    expect(pulls.map(({ upstream, policy }) => [upstream.name, policy.access])).toEqual([
      ['a.test', 'cluster'],
      ['b.test', 'online'],
    ]);
    expect(
      decisions
        .find('')
        .map(({ decision }) => decision)
        .sort(),
    ).toEqual(['bypass', 'not_allowed', 'upstream', 'upstream']);
  });

  it('RegistryServer ends a request under the routing that it began with', async () => {
    const { promise, resolve } = Promise.withResolvers<Answer>();
    respond = () => promise;
    client.get(path);
    await waitFor(() => pulls.length === 1);
    server.reroute({ defaultUpstream: 'b.test', policies: new Policies([]) });
    expect(held).toEqual(['a.test']);
    resolve(answer);
    expect((await client.answer()).status).toBe(200);
    await waitFor(() => held.length === 0);
    expect(decisions.find('').map(({ registry }) => registry)).toEqual(['a.test']);
  });

  it('RegistryServer lets go of an upstream when a request fails', async () => {
    respond = () => Promise.reject(new Error('a bug'));
    client.get(path);
    await waitFor(() => pulls.length === 1 && held.length === 0);
  });
});
