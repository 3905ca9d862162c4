import { AgentError } from '../../rpc/agent-error.ts';
import type { AgentClient, LocatedHolder, LocateKey } from '../../rpc/agent-client.ts';
import type { AgentPool } from '../../rpc/agent-pool.ts';
import type { PeerClient, ReadStream } from '../../rpc/peer-client.ts';
import type { ReadFrame } from '../../rpc/read-frame.ts';
import type { SecondLook } from '../../rpc/locate-messages.ts';
import { Silence } from '../../rpc/silence.ts';
import type { Digest } from '../../oci/digest.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { Budgets } from '../budgets.ts';
import type { Patience } from '../patience.ts';
import { HolderSearch, type HolderLookup } from './holder-search.ts';
import { PatientLookup } from './patient-lookup.ts';
import type { PeerLoad } from './peer-load.ts';
import { SharedSearches } from './shared-searches.ts';
import type { Quarantine } from './quarantine.ts';
import {
  SourceError,
  type BlobSource,
  type OpenOptions,
  type OpenedBody,
  type Stretch,
  type Wanted,
} from './source.ts';

/** How the state of a copy weighs against streams that a node is sending already. */
const UNVERIFIED_COST = 100;
const BUSY_COST = 50;
/** What leaves the zone costs time and money, but less than to wait for a node that just failed. */
const FAR_COST = 6;

/** The agents of all nodes, this node's own included, as sources of bytes. */
export class Peers {
  readonly #budgets: Pick<Budgets, 'locateMs' | 'peerHeadersMs'>;
  readonly #abortsIngests: boolean;
  readonly #agent: AgentClient | undefined;
  readonly #pool: Pick<AgentPool, 'client'> | undefined;
  readonly #quarantine: Quarantine;
  readonly #load: PeerLoad;
  readonly #log: Logger;
  readonly #searches: SharedSearches;
  readonly #ownSilence = new Silence();

  constructor(
    options: {
      readonly budgets: Pick<Budgets, 'locateMs' | 'peerHeadersMs'>;
      /** Whether the clients are this node's store, which keeps what it has of a body; so unless told. */
      readonly abortsIngests?: boolean;
    },
    dependencies: {
      /** This node's own; without it there is nobody to ask. */
      agent: AgentClient | undefined;
      pool: Pick<AgentPool, 'client'> | undefined;
      quarantine: Quarantine;
      load: PeerLoad;
      log: Logger;
    },
  ) {
    this.#budgets = options.budgets;
    this.#abortsIngests = options.abortsIngests ?? true;
    this.#agent = dependencies.agent;
    this.#pool = dependencies.pool;
    this.#quarantine = dependencies.quarantine;
    this.#load = dependencies.load;
    this.#log = dependencies.log;
    this.#searches = new SharedSearches({
      start: (key, signal, again) =>
        new HolderSearch(
          key,
          { signal, ...(again === undefined ? { timeoutMs: this.#budgets.locateMs } : { again }) },
          {
            agent: this.#agent,
            ownSilence: this.#ownSilence,
            cost: (holder) => this.#cost(holder),
            log: this.#log,
          },
        ),
    });
  }

  /**
   * Looks for holders of a key, together with all that look for it at this moment.
   *
   * @param patience with nodes that give no answer; none unless told
   */
  search(key: LocateKey, signal: AbortSignal, patience?: Patience): HolderLookup {
    const first = this.#searches.join(key, signal);
    if (patience === undefined) return first;
    const second = { join: (again: SecondLook) => this.#searches.join(key, signal, again) };
    return new PatientLookup({ signal }, { first, second, patience });
  }

  /** A node has failed to give what it had promised, or gave it too slowly. */
  recordFailure(node: string): void {
    this.#load.recordFailure(node);
  }

  // A copy that was hashed comes before one that was not, then the node that has least to do, of this zone if one is not much
  // busier than the others.
  #cost(holder: LocatedHolder): number {
    const { busy, far, verified } = holder;
    const own = (verified ? 0 : UNVERIFIED_COST) + (busy ? BUSY_COST : 0) + (far ? FAR_COST : 0);
    return own + this.#load.cost(holder.node);
  }

  /** Whether a holder may be taken for a blob. */
  accepts(digest: Digest, holder: LocatedHolder): boolean {
    return !this.#quarantine.has(digest, holder.node) && this.#client(holder) !== undefined;
  }

  /** A holder as a source of bytes. */
  source(holder: LocatedHolder): BlobSource {
    const label = `node/${holder.node}`;
    return {
      label,
      open: async (digest, wanted, options) => {
        const client = this.#client(holder);
        if (client === undefined) throw new SourceError('no_client', `Cannot reach ${label}`);
        return this.#open(client, holder, { digest, wanted, ...options });
      },
    };
  }

  /**
   * A node gave wrong bytes: leave it alone for this blob and ask it to look at its copy.
   *
   * @param label as in {@link BlobSource.label}
   */
  reportCorrupt(digest: Digest, holder: LocatedHolder): void {
    this.#quarantine.add(digest, holder.node);
    void this.#client(holder)
      ?.reportCorrupt(digest, { timeoutMs: 30_000 })
      .catch((error: unknown) => {
        this.#log.warn({ digest, node: holder.node, err: error }, 'cannot report a corrupt blob');
      });
  }

  /** What this node's client has received so far is wrong: have its store throw it away. */
  async abortIngest(digest: Digest): Promise<number> {
    if (!this.#abortsIngests) return 0;
    return (await this.#agent?.abortIngest(digest, { timeoutMs: 2000 })) ?? 0;
  }

  #client(holder: LocatedHolder): PeerClient | undefined {
    // No address stands for the agent that answered: this node's own.
    if (holder.address === '') return this.#agent;
    return this.#pool?.client(holder.address, holder.node);
  }

  async #open(
    client: PeerClient,
    holder: LocatedHolder,
    request: { digest: Digest; wanted: Wanted } & OpenOptions,
  ): Promise<OpenedBody> {
    const { digest, hashed, isLastResort, signal, wanted } = request;
    // It has just told the agent that it has the blob: the last try to connect from here is older.
    if (client.isFailing) await client.connect();
    const vouches =
      hashed ||
      (isLastResort !== true && (holder.verified || (await this.#isSound(client, digest, signal))));
    const all = { start: 0, end: holder.sizeBytes - 1 };
    const stretch = vouches ? stretchOf(wanted, holder.sizeBytes) : all;
    return this.#read(client, holder, { ...request, stretch });
  }

  async #read(
    client: PeerClient,
    holder: LocatedHolder,
    request: { digest: Digest; stretch: Stretch } & OpenOptions,
  ): Promise<OpenedBody> {
    const { digest, signal, stretch } = request;
    const { start, end } = stretch;
    const stream = client.read(
      { digest, offsetBytes: start, lengthBytes: Math.max(0, end - start + 1) },
      { signal },
    );
    const frames = stream[Symbol.asyncIterator]();
    try {
      const first = await this.#firstFrame(frames, stream);
      const sizeBytes = first.sizeBytes ?? holder.sizeBytes;
      if (sizeBytes !== holder.sizeBytes) {
        throw new SourceError('wrong_size', `node/${holder.node} changed its mind about the size`);
      }
      const trusted = first.verified ?? false;
      const isPart = start > 0 || end < sizeBytes - 1;
      if (!trusted && !request.hashed && isPart) {
        throw new SourceError('unverified', `node/${holder.node} no longer vouches for its copy`);
      }
      const ended = this.#load.begin(holder.node);
      return {
        source: `node/${holder.node}`,
        sizeBytes,
        stretch,
        trusted,
        chunks: chunksOf(first, frames, ended),
        cancel: () => {
          ended();
          stream.cancel();
        },
      };
    } catch (error) {
      stream.cancel();
      const failure = sourceError(error, holder.node);
      const isSick = !['not_held', 'unverified'].includes(failure.outcome);
      if (!signal.aborted && isSick) this.#load.recordFailure(holder.node);
      throw failure;
    }
  }

  /**
   * Has a node hash its copy, which it does at full speed the first time and once for all who ask.
   * What takes longer than this waits is known to whoever asks later. A client that wants parts need
   * not stay until the hash of the whole could be known here.
   */
  async #isSound(client: PeerClient, digest: Digest, signal: AbortSignal): Promise<boolean> {
    try {
      await client.reportCorrupt(digest, { timeoutMs: this.#budgets.peerHeadersMs, signal });
      return true;
    } catch {
      return false;
    }
  }

  async #firstFrame(frames: AsyncIterator<ReadFrame>, stream: ReadStream): Promise<ReadFrame> {
    const late = new AbortController();
    late.signal.addEventListener('abort', () => stream.cancel(), { once: true });
    const timer = setTimeout(() => late.abort(), this.#budgets.peerHeadersMs);
    try {
      const first = await frames.next();
      if (first.done === true) throw new SourceError('cut', 'the stream ended before it began');
      return first.value;
    } catch (error) {
      if (late.signal.aborted)
        throw new SourceError('timeout', 'no first byte in time', { cause: error });
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** What a wish comes to for a blob of a size; empty stretches end before they start. */
export function stretchOf(wanted: Wanted, sizeBytes: number): { start: number; end: number } {
  if ('suffix' in wanted) {
    return { start: Math.max(0, sizeBytes - wanted.suffix), end: sizeBytes - 1 };
  }
  const end = Math.min(wanted.end ?? sizeBytes - 1, sizeBytes - 1);
  return { start: Math.min(wanted.start, sizeBytes), end };
}

async function* chunksOf(
  first: ReadFrame,
  rest: AsyncIterator<ReadFrame>,
  ended: () => void,
): AsyncGenerator<Buffer> {
  try {
    if (first.data.length > 0) yield first.data;
    for (;;) {
      const next = await rest.next();
      if (next.done === true) return;
      if (next.value.data.length > 0) yield next.value.data;
    }
  } finally {
    ended();
  }
}

function sourceError(error: unknown, node: string): SourceError {
  if (error instanceof SourceError) return error;
  const failure = AgentError.from(error, `Cannot read from node/${node}`);
  return new SourceError(failure.kind, failure.message, { cause: failure });
}
