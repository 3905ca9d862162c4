import type { Member, Membership } from '../../discovery/membership.ts';
import type { Digest } from '../../oci/digest.ts';
import type { HeldPart } from '../../rpc/agent-protocol.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { BlobSizes, CopyHolder } from './copy-choice.ts';

/** Asks one member for all that it has. Throws when it does not answer. */
export type ListMember = (
  member: Member,
  limits: { readonly signal: AbortSignal; readonly timeoutMs: number },
) => AsyncIterable<HeldPart>;

export interface CopyCountOptions {
  readonly selfName: string;
  /** How long one member may take for all of its answer, milliseconds. */
  readonly memberTimeoutMs: number;
  /** How many members are asked at a time. */
  readonly maxAtOnce: number;
}

/** Who had which images when everybody was asked. */
export interface CopyPoll {
  /** Other members that were asked, and those of them that answered in full. */
  readonly asked: number;
  readonly answered: number;
  /** Other nodes' complete copies, by target; nothing for images that were not asked about. */
  readonly holders: ReadonlyMap<Digest, readonly CopyHolder[]>;
}

/** The images to ask about and all that belongs to each. */
export type WantedCopies = ReadonlyMap<Digest, BlobSizes>;

/**
 * Counts the complete copies that other nodes have, by asking each member what it holds. A member
 * that does not answer has none. Of an answer only what was asked about is remembered.
 */
export class CopyCount {
  readonly #options: CopyCountOptions;
  readonly #membership: Membership;
  readonly #list: ListMember;
  readonly #log: Pick<Logger, 'debug'>;

  constructor(
    options: CopyCountOptions,
    dependencies: { membership: Membership; list: ListMember; log: Pick<Logger, 'debug'> },
  ) {
    this.#options = options;
    this.#membership = dependencies.membership;
    this.#list = dependencies.list;
    this.#log = dependencies.log;
  }

  /** How many others there are to ask. */
  get others(): number {
    return this.#others().length;
  }

  /** Asks everybody, unless there is nothing to ask. @throws only the signal's reason */
  async poll(
    wanted: WantedCopies,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<CopyPoll> {
    const waiting = wanted.size === 0 ? [] : this.#others();
    const asked = waiting.length;
    const holders = new Map<Digest, CopyHolder[]>();
    const sizes = new Map<Digest, number>();
    for (const [target, blobs] of wanted) {
      holders.set(target, []);
      for (const [digest, sizeBytes] of blobs) sizes.set(digest, sizeBytes);
    }
    let answered = 0;
    const worker = async (): Promise<void> => {
      for (let member = waiting.shift(); member !== undefined; member = waiting.shift()) {
        const held = await this.#ask(member, sizes, signal);
        if (held === undefined) continue;
        answered += 1;
        for (const [target, blobs] of wanted) {
          if (![...blobs.keys()].every((digest) => held.blobs.has(digest))) continue;
          const isNamed = held.named.has(target);
          holders.get(target)?.push({ node: member.name, isNamed });
        }
      }
    };
    await Promise.all(Array.from({ length: this.#options.maxAtOnce }, worker));
    signal.throwIfAborted();
    return { asked, answered, holders };
  }

  async #ask(
    member: Member,
    sizes: ReadonlyMap<Digest, number>,
    signal: AbortSignal,
  ): Promise<{ blobs: Set<Digest>; named: Set<Digest> } | undefined> {
    const { memberTimeoutMs: timeoutMs } = this.#options;
    const blobs = new Set<Digest>();
    const named = new Set<Digest>();
    try {
      for await (const part of this.#list(member, { signal, timeoutMs })) {
        for (const { digest, sizeBytes } of part.blobs) {
          if (sizes.get(digest) === sizeBytes) blobs.add(digest);
        }
        for (const target of part.named) if (sizes.has(target)) named.add(target);
      }
      return { blobs, named };
    } catch (error) {
      this.#log.debug({ member: member.name, err: error }, 'member did not say what it holds');
      return undefined;
    }
  }

  #others(): Member[] {
    const { selfName } = this.#options;
    return this.#membership.members().filter(({ name }) => name !== selfName);
  }
}
