import type { IdentityFacts } from '../../rpc/identity-facts.ts';
import type { NodeReach } from '../../rpc/node-reach.ts';
import type { ContainerdConfig } from '../containerd-config/containerd-config.ts';

/** One directory below a root of config_path that counts. */
export interface HostsDirectory {
  readonly path: string;
  /** undefined: `_default`, for all others. */
  readonly registry: string | undefined;
  /** Of its hosts.toml; undefined: there is none. */
  readonly text: string | undefined;
  /** Why it cannot be read. */
  readonly failure?: string;
}

/** Who another agent says it can ask. */
export interface MemberAnswer {
  readonly node: string;
  readonly address: string;
  /** undefined: it did not answer, or is too old to. */
  readonly reach: NodeReach | undefined;
  readonly failure: string;
  readonly isOld: boolean;
  /** How far its clock is ahead of this one's, milliseconds. */
  readonly skewMs: number | undefined;
}

/** A file system that Salvor depends on. */
export interface DiskFact {
  readonly of: 'content' | 'state';
  readonly path: string;
  readonly usedPercent: number;
  readonly availableBytes: number;
}

/** Everything that checks look at. Each part is gathered by itself, and may be missing. */
export interface Facts {
  readonly nowMs: number;
  readonly settings: {
    readonly nodeName: string;
    readonly mirrorUrl: string;
    readonly isKeeperOff: boolean;
    /** It is among the nodes whose containerd is to ask Salvor. */
    readonly isWiringExpected: boolean;
    readonly wiredPercent: number;
    readonly policies: readonly { readonly match: string; readonly mode: string }[];
    readonly containerdConfig: string;
  };
  /** The release that runs, or why it cannot be asked. */
  readonly runtime: { readonly version: string } | { readonly failure: string };
  readonly config: ContainerdConfig & {
    /** Files with a table that this release passes over. */
    readonly ignoredTables: readonly string[];
    readonly isLazySnapshotter: boolean;
    /** A directory has all of config_path as its name, so that it is found as one. */
    readonly isOneDirectory: boolean;
  };
  readonly hosts: {
    readonly directories: readonly HostsDirectory[];
    readonly passedOver: readonly { readonly path: string; readonly reason: string }[];
    readonly defaultPath: string;
    readonly version: string | undefined;
  };
  readonly canary: { readonly image: string; readonly isAsked: boolean; readonly answer: string };
  readonly registry:
    /** The second: why it does not say what it was asked; empty when it does, or nobody asks. */
    | { readonly version: string; readonly adminFailure: string }
    | { readonly failure: string; readonly isForeign: boolean };
  readonly agent: { readonly failure: string };
  readonly members: {
    readonly source: string;
    readonly count: number;
    readonly confirmedAtMs?: number;
    readonly trouble?: string;
    readonly hasSelf?: boolean;
  };
  readonly reach: {
    readonly own: NodeReach;
    readonly others: readonly MemberAnswer[];
    /** Every node has said which others it can ask. */
    readonly isCluster: boolean;
  };
  readonly identity: { readonly failure: string } | { readonly facts: IdentityFacts };
  readonly disks: {
    readonly all: readonly DiskFact[];
    /** Why the state directory cannot be written; empty when it can. */
    readonly stateFailure: string;
    readonly statePath: string;
  };
  readonly upstreams: readonly {
    readonly registry: string;
    readonly url: string;
    /** Why it cannot be asked from here; empty when it can. */
    readonly failure: string;
    /** What the registry has proof of. */
    readonly outage?: string;
  }[];
  /** Of containerd. */
  readonly proxy: { readonly url: string; readonly noProxy: string };
  readonly ownImage: { readonly name: string; readonly missing: readonly string[] };
  readonly pulls: {
    readonly seen: number;
    readonly bypassed: number;
    /** Nobody can say. Left out by agents that do not know this yet. */
    readonly unknown?: number;
    readonly examples: readonly { readonly image: string; readonly reason: string }[];
  };
}
