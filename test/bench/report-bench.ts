import { Registry } from 'prom-client';
import { credentials } from '@grpc/grpc-js';
import { createAgentMetrics } from '../../src/agent/agent-metrics.ts';
import { AgentServer } from '../../src/agent/agent-server.ts';
import { HeldContent } from '../../src/agent/held-content.ts';
import { Observations } from '../../src/agent/observations.ts';
import { PeerService } from '../../src/agent/peer-service.ts';
import { digestOf, type Digest } from '../../src/oci/digest.ts';
import { MEDIA_TYPE } from '../../src/oci/media-type.ts';
import { DEFAULT_POLICY } from '../../src/policy/policy.ts';
import { createReportMetrics } from '../../src/report/report-metrics.ts';
import { Reporter } from '../../src/report/reporter.ts';
import { AgentPool } from '../../src/rpc/agent-pool.ts';
import type {
  ImagePart,
  ImageTree,
  InventoryImage,
  NodeBlob,
  NodeInventory,
} from '../../src/rpc/inventory.ts';
import { systemClock } from '../../src/telemetry/clock.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { median, singleResult, type BenchResult } from './result.ts';
import type { BenchContext } from './rounds.ts';

const nodes = 50;
const images = 1000;
/** How many nodes have an image, and of how many layers of its own it is. */
const copies = 10;
const layers = 10;
const platforms = 8;
const windowBytes = 512 * 1024;

/** Every name that {@link benchReports} may give results under. */
export const reportNames: readonly string[] = ['report.1000'];

/**
 * How long a report about 1,000 images on 50 nodes takes. The nodes are simulated: their agents are
 * servers of this process, on sockets of their own, and say what they were told to have. So the
 * time is that of asking, sending, receiving and judging, all on one processor; walks of real
 * stores, which nodes do side by side, are not in it.
 */
export async function benchReports(context: BenchContext): Promise<BenchResult[]> {
  const cluster = await SimulatedCluster.start();
  try {
    const seconds: number[] = [];
    for (let round = 0; round <= context.pairs; round += 1) {
      context.signal.throwIfAborted();
      const tookMs = await cluster.measure();
      context.progress(`report.1000 ${round}/${context.pairs}: ${(tookMs / 1000).toFixed(2)} s`);
      if (round > 0) seconds.push(tookMs / 1000);
    }
    const label = { name: 'report.1000', unit: 's' };
    return [singleResult(label, median(seconds), seconds.length)];
  } finally {
    await cluster.close();
  }
}

class SimulatedCluster {
  readonly #servers: AgentServer[];
  readonly #pool: AgentPool;
  readonly #reporter: Reporter<{ readonly name: string; readonly address: string }>;

  private constructor(servers: AgentServer[], members: { name: string; address: string }[]) {
    this.#servers = servers;
    this.#pool = new AgentPool(
      { windowBytes, maxClients: nodes },
      { credentials: credentials.createInsecure() },
    );
    this.#reporter = new Reporter(
      { maxAsked: 16, memberTimeoutMs: 60_000, maxAgeMs: 0 },
      {
        members: () => members,
        ask: ({ address, name }, limits) => this.#pool.client(address, name).inventory(limits),
        rules: () => ({
          policyFor: () => DEFAULT_POLICY,
          allowsRegistry: () => true,
          maxManifestBytes: 8 * 1024 * 1024,
        }),
        metrics: createReportMetrics(new Registry()),
        clock: systemClock,
        log: silentLogger,
      },
    );
  }

  static async start(): Promise<SimulatedCluster> {
    const all = Array.from({ length: images }, (_, n) => imageOf(n));
    const servers: AgentServer[] = [];
    const members: { name: string; address: string }[] = [];
    for (let n = 0; n < nodes; n += 1) {
      const name = `node-${n}`;
      const held = all.filter((_, image) => (n - image + images * nodes) % nodes < copies);
      const server = agentServer(inventoryOf(name, held));
      const port = await server.listen('127.0.0.1:0');
      servers.push(server);
      members.push({ name, address: `127.0.0.1:${port}` });
    }
    return new SimulatedCluster(servers, members);
  }

  /** One report. @returns how long it took, milliseconds */
  async measure(): Promise<number> {
    const startedMs = performance.now();
    const report = await this.#reporter.current();
    const tookMs = performance.now() - startedMs;
    const { summary, isComplete } = report;
    if (!isComplete || summary.images !== images || summary.survives !== images) {
      throw new Error(`Cannot count this report: ${JSON.stringify(summary)}`);
    }
    return tookMs;
  }

  async close(): Promise<void> {
    this.#reporter.stop();
    this.#pool.close();
    const signal = AbortSignal.abort();
    await Promise.all(this.#servers.map((server) => server.close({ signal })));
  }
}

interface SimulatedImage {
  readonly names: readonly string[];
  readonly tree: ImageTree;
}

function imageOf(n: number): SimulatedImage {
  const part = (role: ImagePart['role'], text: string): ImagePart => ({
    role,
    digest: digestOf(Buffer.from(`${n} ${text}`)),
    sizeBytes: 1000,
    isForeign: false,
  });
  const index = part('index', 'index');
  const listed = Array.from({ length: platforms }, (_, platform) => {
    const manifest = part('manifest', `manifest ${platform}`);
    const below = [
      part('config', 'config'),
      ...Array.from({ length: layers }, (_, layer) => part('layer', `layer ${layer}`)),
    ];
    // Of the other platforms no node has more than what the index says.
    const isRead = platform === 0;
    return {
      platform: { os: 'linux', architecture: isRead ? 'amd64' : `other${platform}` },
      isDeclared: true,
      manifest: manifest.digest,
      parts: [index, manifest, ...(isRead ? below : [])],
      isRead,
    };
  });
  const { digest: root, sizeBytes } = index;
  const repository = `registry.test/team-${n % 20}/app-${n}`;
  return {
    names: [`${repository}:v1`, `${repository}@${root}`, listed[0]!.parts[2]!.digest],
    tree: { root, mediaType: MEDIA_TYPE.ociIndex, sizeBytes, platforms: listed },
  };
}

function inventoryOf(node: string, held: readonly SimulatedImage[]): NodeInventory {
  const blobs = new Map<Digest, NodeBlob>();
  const blob = { sizeBytes: 1000, isVerified: true, isCorrupt: false, isKept: true };
  const nowMs = Date.now();
  for (const { tree } of held) {
    for (const { isRead, parts } of tree.platforms) {
      if (isRead) for (const { digest } of parts) blobs.set(digest, blob);
    }
  }
  const target = ({ root: digest, mediaType, sizeBytes }: ImageTree) => ({
    ...{ digest, mediaType, sizeBytes },
    recordedAtMs: nowMs - 1000,
  });
  return {
    facts: {
      node,
      store: 'containerd',
      runtimeVersion: '2.2.0',
      snapshotter: 'overlayfs',
      discardsLayers: false,
      warnings: [],
      walkedAtMs: nowMs,
      registriesSeen: ['registry.test'],
    },
    blobs,
    images: held.flatMap(({ names, tree }) =>
      names.map((name): InventoryImage => ({ name, target: target(tree), isInUse: false })),
    ),
    trees: new Map(held.map(({ tree }) => [tree.root, tree])),
    observed: new Map(
      held.map(({ names, tree }) => [names[0]!, { ...target(tree), observedAtMs: nowMs - 1000 }]),
    ),
  };
}

/** A real agent's listener over an inventory that was made up. */
function agentServer(inventory: NodeInventory): AgentServer {
  const readers = { count: 0 };
  const metrics = createAgentMetrics(new Registry());
  const store = undefined as never;
  const content = new HeldContent({
    store,
    integrity: store,
    reports: store,
    observations: new Observations({ maxNames: 1 }),
  });
  const inventories = { current: async () => inventory };
  const service = new PeerService(
    { maxReaders: 1, chunkBytes: 64 * 1024, readerStallMs: 60_000 },
    { content, metrics, log: silentLogger, readers, inventories, reach: store },
  );
  return new AgentServer(
    { windowBytes, maxConnections: 1024, maxHandshakes: 512, maxConcurrentStreams: 16 },
    { peer: service.implementation() },
  );
}
