import type { Locator } from '../../discovery/locate.ts';
import type { Member } from '../../discovery/membership.ts';
import type { Digest } from '../../oci/digest.ts';
import type { AgentPool } from '../../rpc/agent-pool.ts';
import type { ReadFrame } from '../../rpc/read-frame.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { OpenedBytes } from './opened-bytes.ts';

/** Another node that says it has a blob. */
export interface PeerHolder {
  readonly member: Member;
  readonly sizeBytes: number;
  readonly verified: boolean;
  readonly busy: boolean;
  /** In another failure zone than this node, where both zones are known. */
  readonly far: boolean;
}

const reportTimeoutMs = 30_000;

/** Other nodes as sources of content, through this node's own lookups and connections. */
export class HolderFinder {
  readonly #selfName: string;
  readonly #locator: Pick<Locator, 'locate'>;
  readonly #pool: Pick<AgentPool, 'client'>;
  readonly #log: Pick<Logger, 'warn'>;

  constructor(
    options: { readonly selfName: string },
    dependencies: {
      locator: Pick<Locator, 'locate'>;
      pool: Pick<AgentPool, 'client'>;
      log: Pick<Logger, 'warn'>;
    },
  ) {
    this.#selfName = options.selfName;
    this.#locator = dependencies.locator;
    this.#pool = dependencies.pool;
    this.#log = dependencies.log;
  }

  /** Who has a blob: those first that have hashed it, then those with less to do, then those near by. */
  async find(
    { digest }: { readonly digest: Digest },
    { signal }: { readonly signal: AbortSignal },
  ): Promise<PeerHolder[]> {
    const found: PeerHolder[] = [];
    for await (const answer of this.#locator.locate({ digest }, { signal })) {
      if (!('holder' in answer) || answer.holder.member.name === this.#selfName) continue;
      found.push(answer.holder);
    }
    signal.throwIfAborted();
    // The order of the answers stays within each kind, which spreads the load a little.
    const cost = ({ verified, busy, far }: PeerHolder): number =>
      (verified ? 0 : 4) + (busy ? 2 : 0) + (far ? 1 : 0);
    return found.sort((a, b) => cost(a) - cost(b));
  }

  /** Begins to read; errors come from the iteration. */
  async open(
    { member }: PeerHolder,
    request: { readonly digest: Digest; readonly offsetBytes: number },
    { signal }: { readonly signal: AbortSignal },
  ): Promise<OpenedBytes> {
    const stream = this.#pool.client(member.address, member.name).read(request, { signal });
    return { chunks: dataOf(stream), cancel: () => stream.cancel() };
  }

  /** Has a node look at its copy. Does not wait. */
  reportCorrupt({ member }: PeerHolder, digest: Digest): void {
    this.#pool
      .client(member.address, member.name)
      .reportCorrupt(digest, { timeoutMs: reportTimeoutMs })
      .catch((error: unknown) => {
        this.#log.warn({ digest, node: member.name, err: error }, 'Cannot report a corrupt blob');
      });
  }
}

async function* dataOf(frames: AsyncIterable<ReadFrame>): AsyncGenerator<Uint8Array> {
  for await (const { data } of frames) if (data.byteLength > 0) yield data;
}
