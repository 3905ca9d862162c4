import { Registry } from 'prom-client';
import { afterEach, expect } from 'vitest';
import { type Answer } from '../../../src/registry/answer.ts';
import { ByteBudget } from '../../../src/registry/byte-budget.ts';
import { DecisionLog } from '../../../src/registry/decision-log.ts';
import type { PullRequest } from '../../../src/registry/pull-request.ts';
import { Policies } from '../../../src/policy/policy.ts';
import { createRegistryMetrics } from '../../../src/registry/registry-metrics.ts';
import { RegistryServer } from '../../../src/registry/registry-server.ts';
import { RequestReports } from '../../../src/registry/request-reports.ts';
import { Savings } from '../../../src/registry/savings.ts';
import type { Outage } from '../../../src/registry/upstream/upstream-health.ts';
import type { Upstream } from '../../../src/registry/upstream/upstream.ts';
import { digestOf } from '../../../src/oci/digest.ts';
import { silentLogger, type LogFields } from '../../../src/telemetry/logger.ts';
import { FakeBody } from './fake-body.ts';
import { RawClient } from './raw-client.ts';

export const content = Buffer.from('{"a manifest":true}');
export const digest = digestOf(content);
export const blobPath = `/v2/library/nginx/blobs/${digest}`;
export const manifestPath = '/v2/library/nginx/manifests/1';

interface Setup {
  readonly manifest?: (request: PullRequest) => Promise<Answer>;
  readonly blob?: (request: PullRequest) => Promise<Answer>;
  readonly maxStreams?: number;
  readonly clientStallMs?: number;
  readonly requestTimeoutMs?: number;
  readonly defaultUpstream?: string;
  readonly outage?: Outage;
  readonly budget?: ByteBudget;
}

const open: { close(): Promise<void> | void }[] = [];
/** What the servers of this test have logged. */
export const logged: { level: string; fields: LogFields; message: string }[] = [];

afterEach(async () => {
  for (const one of open.reverse()) await one.close();
  open.length = 0;
  logged.length = 0;
});

export function whole(bytes: Buffer, decision: Answer['decision'] = 'upstream'): Answer {
  return {
    status: 200,
    headers: { 'content-type': 'a/b', 'content-length': bytes.length },
    body: bytes,
    decision,
  };
}

export function streamed(body: FakeBody): Answer {
  return {
    status: 200,
    headers: { 'content-length': body.sizeBytes },
    body: { chunks: body.chunks, cancel: () => body.cancel() },
    decision: 'upstream',
  };
}

/** A server, and what it has done beside answering. */
interface Started {
  readonly port: number;
  readonly server: RegistryServer;
  readonly register: Registry;
  readonly decisions: DecisionLog;
  /** Names of the upstreams that were told of a request that was saved. */
  readonly saved: readonly string[];
}

/** Starts a server that is closed after the test. */
export async function start(setup: Setup = {}): Promise<Started> {
  const saved: string[] = [];
  const decisions = new DecisionLog({ maxEntries: 10 });
  const note = (level: string) => (fields: LogFields, message: string) =>
    void logged.push({ level, fields, message });
  const register = new Registry();
  const metrics = createRegistryMetrics(register, { configured: () => [], upstreams: () => [] });
  const log = { ...silentLogger, info: note('info'), error: note('error') };
  const server = new RegistryServer(
    {
      limits: {
        maxIdleConnections: 64,
        maxStreams: setup.maxStreams ?? 10,
        maxManifestBytes: 1e6,
        manifestCacheBytes: 1e6,
        maxHeaderBytes: 4096,
        upstreamConnections: 1,
        clientStallMs: setup.clientStallMs ?? 5000,
      },
      defaultUpstream: setup.defaultUpstream ?? 'registry.test',
      ...(setup.requestTimeoutMs === undefined ? {} : { requestTimeoutMs: setup.requestTimeoutMs }),
    },
    {
      upstreams: {
        get: (name) => {
          const recordSaved = (): void => void saved.push(name);
          const upstream = { name, peers: 'fallback', outage: setup.outage, recordSaved };
          return name.endsWith('.test') ? (upstream as unknown as Upstream) : undefined;
        },
        hold: () => () => undefined,
      },
      manifests: { answer: setup.manifest ?? (async () => whole(content)) },
      blobs: { answer: setup.blob ?? (async () => whole(content)) },
      policies: new Policies([]),
      metrics,
      reports: new RequestReports({
        decisions,
        metrics,
        savings: new Savings({ metrics }),
        log,
      }),
      budget: setup.budget ?? new ByteBudget({ limitBytes: 1e6 }),
      log,
    },
  );
  open.push({ close: () => server.close({ signal: AbortSignal.abort() }) });
  const address = await server.listen('127.0.0.1:0');
  return { server, register, decisions, saved, port: Number(address.split(':')[1]) };
}

export async function connect(port: number): Promise<RawClient> {
  const client = await RawClient.open(port);
  open.push(client);
  return client;
}

export function errorCode(body: Buffer): string {
  const parsed = JSON.parse(body.toString()) as { errors: { code: string; message: string }[] };
  expect(parsed.errors[0]!.message).not.toBe('');
  return parsed.errors[0]!.code;
}
