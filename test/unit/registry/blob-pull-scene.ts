import { randomBytes } from 'node:crypto';
import { digestOf } from '../../../src/oci/digest.ts';
import type { Answer } from '../../../src/registry/answer.ts';
import { BlobPull, type BlobKeeper } from '../../../src/registry/blob-pull.ts';
import type { Budgets } from '../../../src/registry/budgets.ts';
import type { ByteBudget } from '../../../src/registry/byte-budget.ts';
import type { KeepNotices } from '../../../src/registry/keep-notices.ts';
import { ManifestCache } from '../../../src/registry/manifest-cache.ts';
import type { PullRequest } from '../../../src/registry/pull-request.ts';
import { PeerLoad } from '../../../src/registry/sources/peer-load.ts';
import { Peers } from '../../../src/registry/sources/peers.ts';
import { Quarantine } from '../../../src/registry/sources/quarantine.ts';
import { UpstreamFailure } from '../../../src/registry/upstream/upstream-failure.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { FakeAgent, FakeUpstream, plentyOfBytes, type FakeHolding } from './fake-sources.ts';
import { responseOf } from './upstream/fake-response.ts';

export const small = randomBytes(5000);
export const big = randomBytes(3 * 1024 * 1024);
export const manifest = Buffer.from(
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

export const down = new UpstreamFailure('refused', 'registry.test refused the connection');
export const refusing = (): FakeUpstream => new FakeUpstream(() => Promise.reject(down));
export const sending = (bytes: Buffer): FakeUpstream =>
  new FakeUpstream(() =>
    responseOf({ headers: { 'content-length': String(bytes.length) }, body: bytes }),
  );
export const saying = (status: number, headers: Record<string, string> = {}): FakeUpstream =>
  new FakeUpstream(() => responseOf({ status, headers, body: Buffer.from('said') }));

/** A BlobPull with nodes that hold what a test says. */
export function scene(
  holdings: readonly FakeHolding[] = [],
  options: {
    keeper?: BlobKeeper;
    notices?: Pick<KeepNotices, 'blobAsked'>;
    cache?: ManifestCache;
    budget?: ByteBudget;
  } = {},
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
    {
      peers,
      manifests: cache,
      keeper: options.keeper,
      notices: options.notices,
      budget: options.budget ?? plentyOfBytes(),
      log: silentLogger,
    },
  );
  return { agent, load, pull };
}

export interface Got {
  readonly status: number;
  readonly headers: Answer['headers'];
  readonly bytes: Buffer;
  readonly error: unknown;
}

export async function read(answer: Answer): Promise<Got> {
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

export async function get(pull: BlobPull, request: PullRequest, bytes: Buffer): Promise<Got> {
  return read(await pull.answer(request, digestOf(bytes)));
}

/** The same bytes but for one. */
export function altered(bytes: Buffer, at = 0): Buffer {
  const copy = Buffer.from(bytes);
  copy[at]! ^= 1;
  return copy;
}

export function message({ bytes }: Got): string {
  return (JSON.parse(bytes.toString()) as { errors: { message: string }[] }).errors[0]!.message;
}
