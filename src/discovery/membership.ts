/** One node of the cluster and where its agent listens. */
export interface Member {
  /** The node's name, as people know it. */
  readonly name: string;
  /** "host:port" of the agent. */
  readonly address: string;
  /** Failure zone of the node, where it is known. */
  readonly zone?: string;
}

/** Who belongs to the cluster. Membership says nothing about who is alive. */
export interface Membership {
  /** The members known at this moment, this node perhaps among them. Never waits. */
  members(): readonly Member[];
  /** Failure zone of this node, where it is known. */
  readonly zone?: string | undefined;
}

/** What of a {@link Membership} is shown to people and metrics. */
export interface MembershipStatus {
  /** Where the list comes from, such as "kubernetes salvor/salvor". */
  readonly source: string;
  /** Members but for this node. */
  readonly count: number;
  /** Members among them that the source no longer names, and that are kept for a while. */
  readonly kept: number;
  /** When the source last said that the list holds, milliseconds since the epoch. */
  readonly confirmedAtMs: number | undefined;
  /** Whether the source names this node, too; undefined: it has not said anything yet. */
  readonly hasSelf: boolean | undefined;
  /** As {@link Membership.zone}. */
  readonly zone: string | undefined;
  /** Why the source could not be asked, since that time. */
  readonly trouble: string | undefined;
}
