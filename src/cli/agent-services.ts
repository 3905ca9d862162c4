import type { Registry } from 'prom-client';
import { createAgentMetrics } from '../agent/agent-metrics.ts';
import { AgentServer } from '../agent/agent-server.ts';
import { ContainerdClient } from '../agent/containerd/containerd-client.ts';
import type { ContainerdConnection } from '../agent/containerd/containerd-connection.ts';
import { ContainerdEditor } from '../agent/containerd/containerd-editor.ts';
import { CorruptionReports } from '../agent/corruption-reports.ts';
import { EventWatch } from '../agent/containerd/event-watch.ts';
import type { Backfill } from '../agent/keeper/backfill.ts';
import type { BackfillStatus } from '../agent/keeper/backfill-progress.ts';
import { HeldContent } from '../agent/held-content.ts';
import { Integrity } from '../agent/integrity.ts';
import { Inventories } from '../agent/inventory/inventories.ts';
import type { SurveyedStore } from '../agent/inventory/survey.ts';
import { ImageKeeper } from '../agent/keeper/image-keeper.ts';
import { createKeeperMetrics } from '../agent/keeper/keeper-metrics.ts';
import { ManifestFinder } from '../agent/keeper/manifest-finder.ts';
import { StoredManifests } from '../agent/keeper/stored-manifests.ts';
import { LastProof } from '../agent/last-proof.ts';
import { LocalService } from '../agent/local-service.ts';
import type { ObservationFile } from '../agent/observation-file.ts';
import { Observations } from '../agent/observations.ts';
import { PullCount, type PullSummary } from '../agent/pulls/pull-count.ts';
import { createPullMetrics } from '../agent/pulls/pull-metrics.ts';
import { IMAGE_TOPICS, imageOf } from '../agent/pulls/image-events.ts';
import { askRegistryLog, isRegistryThere } from '../agent/pulls/registry-log.ts';
import { PEER_ROLES } from '../agent/caller-roles.ts';
import { PeerService } from '../agent/peer-service.ts';
import { Reach } from '../agent/reach.ts';
import { RefusedConnections } from '../agent/refused-connections.ts';
import { RegistryWatch } from '../agent/registry-watch.ts';
import type { ContentStore } from '../agent/store.ts';
import type { Config } from '../config/schema.ts';
import { isInShare } from '../node/hosts/node-share.ts';
import type { Digest } from '../oci/digest.ts';
import { Locator } from '../discovery/locate.ts';
import type { Member, MembershipStatus } from '../discovery/membership.ts';
import { AgentPool } from '../rpc/agent-pool.ts';
import type { AdminPage } from '../telemetry/admin-server.ts';
import { systemClock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import { guardOfAll } from './address-guards.ts';
import { agentReport } from './agent-report.ts';
import { askMember } from './ask-member.ts';
import { nodeMembership } from './membership.ts';
import { bootstrapService } from './bootstrap-service.ts';
import { BACKFILL_OFF, backfillOf } from './backfill-service.ts';
import { lastCopiesService } from './last-copies-service.ts';
import { mirrorUrlOf } from './mirror-url.ts';
import type { NodeCredentials } from './node-identity.ts';
import type { Service } from './service-group.ts';

/** Calls that one connection may have under way beside its blob streams. */
const SPARE_STREAMS = 256;
/** Bounds on what the integrity check remembers and on connections to other nodes. */
const MAX_INTEGRITY_RECORDS = 200_000;
const MAX_CONNECTIONS = 512;

/** What an agent is made of. */
export interface AgentParts {
  readonly store: ContentStore & SurveyedStore;
  /** The way to containerd itself, where the store is containerd's. The store closes it. */
  readonly containerd?: ContainerdConnection;
  readonly credentials: NodeCredentials;
  /** Left out where the store itself keeps what the upstream confirmed. */
  readonly observationFile?: ObservationFile;
  /** Where the result of the last proof outlives the process; left out: it does not. */
  readonly proofFile?: string;
  /** Told when bytes of this node were found to be wrong. */
  readonly onCorrupt?: (digest: Digest) => void;
  readonly metrics: Registry;
  readonly log: Logger;
}

/** An agent to run, and what others may do with it. */
export interface AgentService {
  readonly services: readonly Service[];
  /** Takes over what is reloadable of a changed configuration. */
  readonly apply: (config: Pick<Config, 'agent' | 'registry'>) => void;
  /** For its admin port: whom it takes for the other nodes. */
  readonly members: () => MembershipStatus & { readonly list: readonly Member[] };
  /** For its admin port: what is being completed. */
  readonly backfill: () => BackfillStatus | typeof BACKFILL_OFF;
  /** For its admin port: the pulls of the last hour; undefined where they are not looked at. */
  readonly pulls: () => PullSummary | undefined;
  /** For its admin port: what is kept; undefined where the store keeps by itself. */
  readonly copies: () => object | undefined;
  /** Further pages of the admin port. */
  readonly pages: Readonly<Record<string, AdminPage>>;
}

/** The agent as a service: listeners, lookups, background hashing. */
export function agentService(
  config: Pick<Config, 'node' | 'agent' | 'registry'>,
  options: { readonly listen: string | undefined; readonly socket: string },
  parts: AgentParts,
): AgentService {
  const { store, log } = parts;
  const { limits } = config.agent;
  let backfill: Backfill | undefined;
  let upstreams = config.registry;
  const { observationFile } = parts;
  const metrics = createAgentMetrics(parts.metrics, {
    isFileUsable: observationFile && (() => observationFile.isUsable),
  });
  const integrity = new Integrity(
    {
      bytesPerSecond: config.agent.integrity.bytesPerSecond,
      sweepIntervalMs: config.agent.integrity.sweepIntervalMs,
      maxRecords: MAX_INTEGRITY_RECORDS,
    },
    {
      store,
      log,
      clock: systemClock,
      onCorrupt: ({ digest }) => {
        metrics.corruptBlobs.inc();
        parts.onCorrupt?.(digest);
        backfill?.noteCorrupt(digest);
      },
    },
  );
  const observations = new Observations(
    { maxNames: limits.observations },
    { file: observationFile },
  );
  const reports = new CorruptionReports({ integrity, clock: systemClock });
  const content = new HeldContent({ store, integrity, reports, observations });
  const inventories = new Inventories(
    { node: config.node.name },
    { store, integrity, observations, clock: systemClock },
  );
  const pool = new AgentPool(
    { windowBytes: limits.windowBytes, maxClients: MAX_CONNECTIONS },
    { credentials: parts.credentials.channel },
  );
  const readers = { count: 0 };
  const self = { name: config.node.name, address: '' };
  const membership = nodeMembership(config, {
    log,
    metrics: parts.metrics,
    onChange: (members) => pool.keepOnly(new Set(members.map(({ address }) => address))),
  });
  const locator = new Locator(
    { self, memberTimeoutMs: limits.memberTimeoutMs, maxMembersAsked: limits.maxMembersAsked },
    {
      membership,
      ask: askMember({ selfName: self.name, content, pool, readers, limits }),
      connect: ({ address, name }) => pool.client(address, name).connect(),
      log,
    },
  );
  const report = agentReport(config, {
    membership,
    inventories,
    pool,
    metrics: parts.metrics,
    log,
  });
  const watch = new RegistryWatch({
    log,
    kill: (pid) => process.kill(pid, 'SIGKILL'),
    onEnded: () => metrics.registriesEnded.inc(),
  });
  const { chunkBytes, maxReaders, readerStallMs } = limits;
  const peerOptions = { chunkBytes, maxReaders, readerStallMs };
  const pulls = pullCount(config, parts);
  const reach = new Reach(
    { selfName: self.name },
    {
      membership,
      ask: ({ address, name }, digest, bounds) => pool.client(address, name).stat(digest, bounds),
      pulls: () => pulls?.summary(),
      clock: systemClock,
    },
  );
  const peerParts = { content, metrics, log, readers, inventories, reach };
  const serverOptions = {
    windowBytes: limits.windowBytes,
    maxConcurrentStreams: limits.maxReaders + SPARE_STREAMS,
    maxConnections: limits.maxConnections,
    maxHandshakes: limits.maxHandshakes,
  };
  const { server } = parts.credentials;
  const peerService = new PeerService(
    // Without TLS there are no roles to look at; that is for one machine only.
    { ...peerOptions, ...(server === undefined ? {} : { allowedRoles: PEER_ROLES }) },
    peerParts,
  );
  const peers = new AgentServer(serverOptions, {
    peer: peerService.implementation(),
    blobs: peerService.connections(),
  });
  const keeper = imageKeeper(config.agent.keeper, parts);
  // A store that throws wrong content away gets it anew with the next pull.
  if (parts.onCorrupt === undefined) {
    backfill = backfillOf(config, {
      ...{ ...parts, integrity, keeper, locator, pool },
      guardOf: (name) => guardOfAll(name, upstreams),
    });
  }
  const proofs = new LastProof(
    { path: parts.proofFile },
    { register: parts.metrics, clock: systemClock, log },
  );
  const localService = new LocalService({
    locator,
    observations,
    store,
    watch,
    keeper,
    proofs,
    log,
    metrics,
  });
  const local = new AgentServer(serverOptions, {
    peer: new PeerService(peerOptions, peerParts).implementation(),
    local: localService.implementation(),
  });
  const { containerd } = parts;
  const copies =
    containerd &&
    lastCopiesService(config, {
      ...{ containerd, inventories, membership, pool, log, metrics: parts.metrics },
    });
  const bootstrap =
    server &&
    bootstrapService(config, { ...parts, serverIdentity: server, content, agentMetrics: metrics });
  const service: Service = {
    name: 'agent',
    start: async () => {
      await local.listenUnix(options.socket);
      log.info({ socket: options.socket }, 'agent listens for its registry');
      if (options.listen !== undefined) {
        const port = await peers.listen(options.listen, {
          ...(server && { identity: server }),
          refused: new RefusedConnections({ log, metrics }),
        });
        log.info({ address: options.listen, port }, 'agent listens for other nodes');
      }
      await bootstrap?.start();
      await proofs.load();
      integrity.start();
      backfill?.start();
      pulls?.start();
      report.start();
    },
    stop: async ({ signal }) => {
      localService.endWatches();
      await backfill?.stop();
      await pulls?.stop();
      await report.stop();
      inventories.stop();
      await Promise.all([
        peers.close({ signal }),
        local.close({ signal }),
        bootstrap?.stop({ signal }),
      ]);
      pool.close();
      await keeper?.stop();
      await integrity.stop();
      await store.close();
      observationFile?.close();
    },
  };
  return {
    services: [membership.service, service, ...(copies?.services ?? [])],
    apply: (next) => {
      upstreams = next.registry;
      bootstrap?.apply(next);
      membership.apply(next.agent.members);
      report.apply(next);
      copies?.apply(next.agent);
    },
    members: () => ({ ...membership.status(), list: membership.members() }),
    backfill: () => backfill?.status() ?? BACKFILL_OFF,
    copies: () => copies?.status(),
    pulls: () => pulls?.summary(),
    pages: report.pages,
  };
}

/**
 * @returns undefined where nobody pulls by themselves, the registry cannot be asked, or pulls are meant
 *   to go past it
 */
function pullCount(
  { node, registry }: Pick<Config, 'node' | 'registry'>,
  { containerd, metrics, log }: AgentParts,
): { start(): void; stop(): Promise<void>; summary(): PullSummary } | undefined {
  if (containerd === undefined) return undefined;
  const { admin, listen } = registry;
  const pullMetrics = createPullMetrics(metrics);
  const isExpected = isInShare(node.name, node.wiredPercent);
  pullMetrics.wiringExpected.set(isExpected ? 1 : 0);
  if (!isExpected || admin === '') return undefined;
  const client = new ContainerdClient(containerd);
  const count = new PullCount({
    client,
    askRegistry: (digest, options) => askRegistryLog(admin, digest, options),
    isRegistryThere: async (options) => isRegistryThere(mirrorUrlOf(listen), options),
    metrics: pullMetrics,
    clock: systemClock,
    log,
  });
  const watch = new EventWatch(
    { topics: IMAGE_TOPICS },
    {
      client,
      clock: systemClock,
      log,
      onEvent: (event) => {
        const image = imageOf(event);
        if (image !== undefined) count.noteImage(image);
      },
    },
  );
  return {
    start: () => watch.start(),
    stop: async () => {
      await watch.stop();
      await count.stop();
    },
    summary: () => count.summary(),
  };
}

/** @returns undefined where nothing is to be kept: it is off, or the store keeps whole images */
function imageKeeper(
  { mode }: Config['agent']['keeper'],
  { containerd, store, metrics, log }: AgentParts,
): ImageKeeper | undefined {
  if (mode === 'off' || containerd === undefined) return undefined;
  const manifests = new StoredManifests({}, { store });
  const client = new ContainerdClient(containerd);
  return new ImageKeeper(
    {},
    {
      editor: new ContainerdEditor(containerd),
      manifests,
      finder: new ManifestFinder({}, { client, manifests, clock: systemClock }),
      metrics: createKeeperMetrics(metrics),
      log,
      clock: systemClock,
    },
  );
}
