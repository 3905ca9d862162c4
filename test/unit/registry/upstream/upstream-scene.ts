import { afterEach } from 'vitest';
import type { Budgets } from '../../../../src/registry/budgets.ts';
import { AddressGuard } from '../../../../src/policy/address-guard.ts';
import { Endpoint } from '../../../../src/registry/upstream/endpoint.ts';
import {
  UpstreamClient,
  type UpstreamClientOptions,
  type UpstreamRequest,
  type UpstreamResponse,
} from '../../../../src/registry/upstream/upstream-client.ts';
import type { UpstreamFailure } from '../../../../src/registry/upstream/upstream-failure.ts';
import { UpstreamHealth } from '../../../../src/registry/upstream/upstream-health.ts';
import { silentLogger } from '../../../../src/telemetry/logger.ts';
import { WebServer, type Handler } from './web-server.ts';

/** Shorter than the real ones, in about the same proportions. */
export const quickBudgets: Budgets = {
  connectMs: 300,
  hedgeMs: 40,
  peerHeadersMs: 200,
  outageAnswerMs: 400,
  upstreamHeadersMs: 5000,
  stallMs: 500,
  locateMs: 100,
  proofGapMs: 30,
  probeIntervalMs: 60_000,
};

/** Longer than a test may take: whoever waits for so long fails it. */
export const beyondTheTestMs = 600_000;

interface Closable {
  close(): Promise<void>;
}

const opened: Closable[] = [];

afterEach(async () => {
  for (const one of opened.reverse()) await one.close();
  opened.length = 0;
});

/** Has something closed after the test, the last one first. */
export function closedAfterwards<T extends Closable>(one: T): T {
  opened.push(one);
  return one;
}

/** A web server for this test. */
export async function serve(
  handler: Handler,
  tls?: { readonly cert: string; readonly key: string },
): Promise<WebServer> {
  return closedAfterwards(await WebServer.start(handler, tls));
}

/** A client that may dial this machine, for this test unless an endpoint owns it. */
export function clientOf(
  url: string,
  options: Partial<UpstreamClientOptions> & { readonly guard?: AddressGuard | undefined } = {},
): UpstreamClient {
  const { guard = new AddressGuard(['127.0.0.0/8']), ...others } = options;
  return new UpstreamClient(
    { url, connections: 4, connectMs: 2000, redirectRetryMs: 1000, ...others },
    { guard },
  );
}

/** An endpoint with a health of its own; whoever makes it closes it. */
export function endpointOf(
  url: string,
  options: {
    readonly budgets?: Partial<Budgets>;
    readonly forwardsCredentials?: boolean | undefined;
    readonly headers?: Readonly<Record<string, string>> | undefined;
    readonly guard?: AddressGuard | undefined;
    readonly ca?: string;
    readonly tokenFailure?: UpstreamFailure | undefined;
    readonly now?: () => number;
    readonly lookTimeoutMs?: number;
    /** Takes the place of a look whether it is alive. */
    readonly look?: () => Promise<UpstreamResponse>;
  } = {},
): Endpoint {
  const { forwardsCredentials = true, guard, headers = {}, look, now = Date.now } = options;
  const budgets = { ...quickBudgets, ...options.budgets };
  const ca = options.ca === undefined ? {} : { ca: options.ca };
  const client = clientOf(url, { connectMs: budgets.connectMs, headers, guard, ...ca });
  const health = new UpstreamHealth(
    {
      proofGapMs: budgets.proofGapMs,
      probeIntervalMs: budgets.probeIntervalMs,
      probeTimeoutMs: options.lookTimeoutMs ?? budgets.outageAnswerMs / 2,
    },
    {
      client: look === undefined ? client : { host: client.host, send: look },
      log: silentLogger,
      now,
    },
  );
  const tokenServices = { check: async () => options.tokenFailure };
  return new Endpoint({ budgets, forwardsCredentials }, { client, health, tokenServices, now });
}

/** A request for a manifest. */
export function request(options: Partial<UpstreamRequest> = {}): UpstreamRequest {
  return {
    method: 'GET',
    path: '/v2/a/manifests/1',
    headers: {},
    headersTimeoutMs: 5000,
    signal: new AbortController().signal,
    ...options,
  };
}

/** Reads a body to its end. */
export async function textOf(response: UpstreamResponse): Promise<string> {
  return response.body.text();
}
