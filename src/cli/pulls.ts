import type { Config } from '../config/schema.ts';
import { goArchitecture } from '../oci/manifest.ts';
import { BlobPull, type BlobKeeper } from '../registry/blob-pull.ts';
import type { ByteBudget } from '../registry/byte-budget.ts';
import type { KeepNotices } from '../registry/keep-notices.ts';
import type { ManifestCache } from '../registry/manifest-cache.ts';
import { ManifestPull } from '../registry/manifest-pull.ts';
import { OfflineTags } from '../registry/offline-tags.ts';
import { PeerManifests } from '../registry/peer-manifests.ts';
import { PeerLoad } from '../registry/sources/peer-load.ts';
import { Peers } from '../registry/sources/peers.ts';
import { Quarantine } from '../registry/sources/quarantine.ts';
import type { TagRecorder } from '../registry/tag-recorder.ts';
import type { AgentClient } from '../rpc/agent-client.ts';
import type { AgentPool } from '../rpc/agent-pool.ts';
import type { Logger } from '../telemetry/logger.ts';

/** How long a node that gave wrong bytes of a blob is left out for it, milliseconds. */
const QUARANTINE_MS = 600_000;
const QUARANTINE_ENTRIES = 10_000;

/** What answers for manifests, and what for blobs. */
export interface Pulls {
  readonly manifests: ManifestPull;
  readonly blobs: BlobPull;
}

/**
 * Joins what answers pulls: the same for the registry that containerd asks and for that of proofs.
 *
 * @param parts.abortsIngests whether the clients are this node's store; so unless told
 */
export function createPulls(
  { budgets, limits }: Pick<Config['registry'], 'budgets' | 'limits'>,
  parts: {
    readonly agent: AgentClient | undefined;
    readonly pool: AgentPool | undefined;
    readonly abortsIngests?: boolean;
    readonly cache: ManifestCache;
    readonly recorder: TagRecorder;
    readonly notices?: KeepNotices | undefined;
    readonly keeper?: BlobKeeper | undefined;
    readonly budget: ByteBudget;
    readonly log: Logger;
  },
): Pulls {
  const {
    abortsIngests = true,
    agent,
    budget,
    cache,
    keeper,
    log,
    notices,
    pool,
    recorder,
  } = parts;
  const quarantine = new Quarantine({ ttlMs: QUARANTINE_MS, maxEntries: QUARANTINE_ENTRIES });
  const load = new PeerLoad();
  const peers = new Peers({ budgets, abortsIngests }, { agent, pool, quarantine, load, log });
  const peerManifests = new PeerManifests(
    // A manifest's headers wait for all of its bytes, and another node may have to be asked.
    { maxBytes: limits.maxManifestBytes, stallMs: budgets.peerHeadersMs / 2 },
    { peers, cache, budget },
  );
  const platform = { os: 'linux', architecture: goArchitecture(process.arch) };
  const offlineTags = new OfflineTags({ platform }, { peers, manifests: peerManifests });
  const manifests = new ManifestPull(
    { budgets, maxBytes: limits.maxManifestBytes },
    { peers, cache, peerManifests, offlineTags, recorder, notices, budget },
  );
  const blobs = new BlobPull(
    { budgets },
    { peers, manifests: cache, keeper, notices, budget, log },
  );
  return { manifests, blobs };
}
