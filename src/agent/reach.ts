import type { Member, Membership } from '../discovery/membership.ts';
import { parseDigest, type Digest } from '../oci/digest.ts';
import type { MemberReach, NodeReach } from '../rpc/node-reach.ts';
import type { Clock } from '../telemetry/clock.ts';
import type { PullSummary } from './pulls/pull-count.ts';

/** How long a member may take, and how many are asked at a time. */
const TIMEOUT_MS = 2000;
const MAX_AT_ONCE = 16;

/** A digest that nobody has: that of nothing would be held, if by chance. */
const NOBODYS = parseDigest(`sha256:${'0'.repeat(64)}`);

export interface ReachDependencies {
  readonly membership: Membership;
  /** Asks another node's agent something small. Throws when it does not answer. */
  readonly ask: (
    member: Member,
    digest: Digest,
    limits: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ) => Promise<unknown>;
  readonly pulls: () => PullSummary | undefined;
  readonly clock: Clock;
}

/** Tells which other nodes this one can ask, as it is asked by them. */
export class Reach {
  readonly #selfName: string;
  readonly #dependencies: ReachDependencies;

  constructor(options: { readonly selfName: string }, dependencies: ReachDependencies) {
    this.#selfName = options.selfName;
    this.#dependencies = dependencies;
  }

  /** @param nodes only these of the members, by name; none: all but this node */
  async look(
    nodes: readonly string[],
    { signal }: { readonly signal: AbortSignal },
  ): Promise<NodeReach> {
    const { clock, membership, pulls } = this.#dependencies;
    const waiting = membership
      .members()
      .filter(({ name }) => name !== this.#selfName)
      .filter(({ name }) => nodes.length === 0 || nodes.includes(name));
    const members: MemberReach[] = [];
    const work = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        const { name, address } = next;
        members.push({ node: name, address, failure: await this.#failure(next, signal) });
      }
    };
    await Promise.all(Array.from({ length: MAX_AT_ONCE }, work));
    const { seen = 0, bypassed = 0 } = pulls() ?? {};
    return {
      node: this.#selfName,
      atMs: clock.now(),
      members,
      pullsSeen: seen,
      pullsBypassed: bypassed,
    };
  }

  async #failure(member: Member, signal: AbortSignal): Promise<string> {
    if (!NOBODYS.ok) throw new Error('unreachable');
    try {
      await this.#dependencies.ask(member, NOBODYS.value, { timeoutMs: TIMEOUT_MS, signal });
      return '';
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }
}
