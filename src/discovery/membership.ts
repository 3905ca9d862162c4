/** One node of the cluster and where its agent listens. */
export interface Member {
  /** The node's name, as people know it. */
  readonly name: string;
  /** "host:port" of the agent. */
  readonly address: string;
}

/** Who belongs to the cluster. Membership says nothing about who is alive. */
export interface Membership {
  /** The members known at this moment, this node perhaps among them. Never waits. */
  members(): readonly Member[];
}
