import { digestOf } from '../../../src/oci/digest.ts';
import type { ManifestReference } from '../../../src/oci/path.ts';
import type { Answer } from '../../../src/registry/answer.ts';
import type { Budgets } from '../../../src/registry/budgets.ts';
import { ManifestCache } from '../../../src/registry/manifest-cache.ts';
import { ManifestPull } from '../../../src/registry/manifest-pull.ts';
import { OfflineTags } from '../../../src/registry/offline-tags.ts';
import { PeerManifests } from '../../../src/registry/peer-manifests.ts';
import { PeerLoad } from '../../../src/registry/sources/peer-load.ts';
import { Peers } from '../../../src/registry/sources/peers.ts';
import { Quarantine } from '../../../src/registry/sources/quarantine.ts';
import { TagRecorder } from '../../../src/registry/tag-recorder.ts';
import { UpstreamFailure } from '../../../src/registry/upstream/upstream-failure.ts';
import type { TagStatement } from '../../../src/rpc/agent-protocol.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { FakeAgent, FakeUpstream, plentyOfBytes } from './fake-sources.ts';
import { responseOf } from './upstream/fake-response.ts';

export const NOW_MS = Date.UTC(2026, 6, 1, 10);
export const mediaType = 'application/vnd.oci.image.manifest.v1+json';
export const indexType = 'application/vnd.oci.image.index.v1+json';
export const config = Buffer.from('{"architecture":"amd64","os":"linux"}');

export function document(json: object): Buffer {
  return Buffer.from(JSON.stringify({ schemaVersion: 2, ...json }));
}

export const bytes = document({
  mediaType,
  config: {
    mediaType: 'application/vnd.oci.image.config.v1+json',
    digest: digestOf(config),
    size: config.length,
  },
  layers: [],
});
export const digest = digestOf(bytes);
export const index = document({
  mediaType: indexType,
  manifests: [
    {
      mediaType,
      digest,
      size: bytes.length,
      platform: { os: 'linux', architecture: 'amd64' },
    },
  ],
});

export const budgets: Budgets = {
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

export const proven = new UpstreamFailure('refused', 'registry.test refused the connection', {
  isProven: true,
});
export const unproven = new UpstreamFailure('reset', 'registry.test reset the connection');
export const failing = (failure: UpstreamFailure): FakeUpstream =>
  new FakeUpstream(() => Promise.reject(failure));

export function headersOf(content: Buffer): Record<string, string> {
  return {
    'content-type': mediaType,
    'content-length': String(content.length),
    'docker-content-digest': digestOf(content),
    date: new Date(NOW_MS).toUTCString(),
  };
}

export const giving = (content: Buffer): FakeUpstream =>
  new FakeUpstream(({ method }) =>
    responseOf({
      headers: headersOf(content),
      body: method === 'HEAD' ? Buffer.alloc(0) : content,
    }),
  );

export const everything = [index, bytes, config];

/**
 * @param tagsOf what nodes know of any name, by node
 * @param silent nodes that answer what they have, and send nothing of it
 */
export function scene(
  contents: readonly Buffer[] = [],
  budget = plentyOfBytes(),
  tagsOf: Readonly<Record<string, readonly TagStatement[]>> = {},
  silent: readonly string[] = [],
) {
  const agent = new FakeAgent(
    contents.map((content, n) => ({
      node: `n${n}`,
      bytes: content,
      tags: tagsOf[`n${n}`] ?? [],
      silent: silent.includes(`n${n}`),
    })),
  );
  agent.isExact = true;
  /** What has gone to containerd. */
  const passed: string[] = [];
  const peers = new Peers(
    { budgets },
    {
      agent: agent.client,
      pool: agent.pool,
      quarantine: new Quarantine({ ttlMs: 60_000, maxEntries: 100 }),
      load: new PeerLoad(),
      log: silentLogger,
    },
  );
  const cache = new ManifestCache({ maxBytes: 1e6, consentMs: 60_000 });
  const peerManifests = new PeerManifests(
    { maxBytes: 10_000, stallMs: 1000 },
    { peers, cache, budget },
  );
  const pull = new ManifestPull(
    { budgets, maxBytes: 10_000 },
    {
      peers,
      cache,
      peerManifests,
      offlineTags: new OfflineTags(
        { platform: { os: 'linux', architecture: 'amd64' } },
        { peers, manifests: peerManifests, now: () => NOW_MS + 5000 },
      ),
      recorder: new TagRecorder({ agent: agent.client, log: silentLogger }),
      notices: { manifestPassed: (manifest) => void passed.push(manifest.digest) },
      budget,
    },
  );
  return { agent, cache, passed, pull };
}

export const byTag: ManifestReference = { tag: '1' };
export const byDigest: ManifestReference = { digest };
export const confirmed = (content: Buffer, type = mediaType, observedAtMs = NOW_MS) => ({
  digest: digestOf(content),
  mediaType: type,
  sizeBytes: content.length,
  observedAtMs,
});

export function message({ body }: Answer): string {
  if (!Buffer.isBuffer(body)) throw new Error('Cannot read the error: no body');
  return (JSON.parse(body.toString()) as { errors: { message: string }[] }).errors[0]!.message;
}
