import type { Registry } from 'prom-client';
import { BytePace } from '../agent/byte-pace.ts';
import type { ContainerdConnection } from '../agent/containerd/containerd-connection.ts';
import { ContainerdClient } from '../agent/containerd/containerd-client.ts';
import { ContainerdEditor } from '../agent/containerd/containerd-editor.ts';
import { ContainerdLeases } from '../agent/containerd/containerd-leases.ts';
import type { DirectoryStore } from '../agent/directory/directory-store.ts';
import { readDiskUsage, type ReadDiskUsage } from '../agent/disk-usage.ts';
import type { Integrity } from '../agent/integrity.ts';
import {
  AnonymousTokens,
  type AnonymousTokensDependencies,
} from '../agent/keeper/anonymous-tokens.ts';
import { Backfill } from '../agent/keeper/backfill.ts';
import { createBackfillMetrics } from '../agent/keeper/backfill-metrics.ts';
import { BackfillSurvey } from '../agent/keeper/backfill-survey.ts';
import { ContainerdImages } from '../agent/keeper/containerd-images.ts';
import { ContentFetch } from '../agent/keeper/content-fetch.ts';
import { DirectoryImages } from '../agent/keeper/directory-images.ts';
import type { ImageKeeper } from '../agent/keeper/image-keeper.ts';
import type { ImageStore } from '../agent/keeper/local-images.ts';
import { HolderFinder } from '../agent/keeper/peer-holders.ts';
import { RegistryBlobs } from '../agent/keeper/registry-blobs.ts';
import { ContainerdRestore, type Restore } from '../agent/keeper/repair-containerd.ts';
import { DirectoryRestore } from '../agent/keeper/repair-directory.ts';
import { StoredManifests } from '../agent/keeper/stored-manifests.ts';
import type { ContentStore } from '../agent/store.ts';
import type { Config } from '../config/schema.ts';
import type { Locator } from '../discovery/locate.ts';
import { goArchitecture } from '../oci/manifest.ts';
import type { AgentPool } from '../rpc/agent-pool.ts';
import { systemClock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';

/** What an agent says of backfill that is not there. */
export const BACKFILL_OFF = { mode: 'off', repair: 'off' } as const;

/** How long a source may take for the next bytes, milliseconds. */
const STALL_MS = 15_000;
/** More than the registry itself waits for an upstream that is slow. */
const HEADERS_MS = 30_000;

/** What backfill works with. */
export interface BackfillParts {
  readonly store: ContentStore;
  readonly containerd?: ContainerdConnection;
  readonly integrity: Pick<Integrity, 'recheck' | 'stateOf'>;
  readonly keeper: Pick<ImageKeeper, 'keep'> | undefined;
  readonly locator: Pick<Locator, 'locate'>;
  readonly pool: Pick<AgentPool, 'client'>;
  /** What may be dialled for a registry, as images name it. */
  readonly guardOf: AnonymousTokensDependencies['guardOf'];
  readonly metrics: Registry;
  readonly log: Logger;
}

/**
 * Backfill and repair of an agent's store.
 *
 * @returns undefined where both are off
 */
export function backfillOf(
  config: Pick<Config, 'node' | 'agent'> & {
    readonly registry: Pick<Config['registry'], 'listen'>;
  },
  parts: BackfillParts,
): Backfill | undefined {
  const { backfill, repair } = config.agent;
  const { containerd, integrity, keeper, log } = parts;
  // Where nothing makes manifests hold their layers, what is fetched would not stay.
  const mode = containerd !== undefined && keeper === undefined ? 'off' : backfill.mode;
  if (mode === 'off' && repair.mode === 'off') return undefined;
  const place = placeOf(config, parts);
  if (place === undefined) return undefined;
  const clock = systemClock;
  const { intervalMs, maxUsedPercent, onlyInUse } = backfill;
  const platform = { os: 'linux', architecture: goArchitecture(process.arch) };
  return new Backfill(
    { backfill: mode, repair: repair.mode, intervalMs, maxUsedPercent, onlyInUse },
    {
      survey: new BackfillSurvey({ platform }, { store: place.images, integrity }),
      fetch: contentFetch(config, parts),
      restore: place.restore,
      integrity,
      keepLayers: async (manifest) => {
        await keeper?.keep({ digest: manifest, images: [{ manifest, indexes: [] }] });
      },
      readDisk: place.readDisk,
      clock,
      random: Math.random,
      metrics: createBackfillMetrics(parts.metrics),
      log,
    },
  );
}

function contentFetch(
  config: Parameters<typeof backfillOf>[0],
  { guardOf, locator, pool, log }: BackfillParts,
): ContentFetch {
  const { listen: address } = config.registry;
  const { bytesPerSecond } = config.agent.backfill;
  // A port that the system chooses is known to nobody else.
  const upstream = address.endsWith(':0')
    ? undefined
    : new RegistryBlobs(
        { address, headersMs: HEADERS_MS },
        { tokens: new AnonymousTokens({ guardOf }) },
      );
  return new ContentFetch(
    { stallMs: STALL_MS },
    {
      holders: new HolderFinder({ selfName: config.node.name }, { locator, pool, log }),
      upstream,
      pace: new BytePace({ bytesPerSecond }, { clock: systemClock }),
      clock: systemClock,
      log,
    },
  );
}

/** @returns undefined for a store that cannot be written */
function placeOf(
  config: Pick<Config, 'agent'>,
  { store, containerd }: BackfillParts,
):
  | { readonly images: ImageStore; readonly restore: Restore; readonly readDisk: ReadDiskUsage }
  | undefined {
  const { containerd: options, directory } = config.agent.store;
  const manifests = new StoredManifests({}, { store });
  if (containerd !== undefined) {
    const client = new ContainerdClient(containerd);
    const restore = new ContainerdRestore({
      editor: new ContainerdEditor(containerd),
      leases: new ContainerdLeases(containerd),
      manifests,
      store,
      clock: systemClock,
    });
    const readDisk = async (): Promise<Awaited<ReturnType<ReadDiskUsage>>> => {
      const path = options.contentPath || (await client.contentPath({}));
      if (path === undefined) throw new Error('Cannot find the content of containerd');
      return readDiskUsage(path);
    };
    return { images: new ContainerdImages({ client, manifests, store }), restore, readDisk };
  }
  if (!isDirectory(store)) return undefined;
  return {
    images: new DirectoryImages({ manifests, store }),
    restore: new DirectoryRestore({ store }),
    readDisk: () => readDiskUsage(directory.path),
  };
}

/** By its kind: the class itself is loaded only where there is such a store. */
function isDirectory(store: ContentStore): store is DirectoryStore {
  return store.kind === 'directory';
}
