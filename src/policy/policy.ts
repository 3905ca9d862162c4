import { namePattern } from '../oci/name-pattern.ts';

/** What may make a node's copy of a tag acceptable, in an operator's words. */
export type StaleCause = 'unreachable' | '5xx' | '429' | 'gone';

/** What is decided ahead for the pulls of one repository. */
export interface PullPolicy {
  /**
   * serve: all of it. observe: forward and remember, nodes never answer. bypass: 404 at once, so
   * that clients go to the upstream themselves.
   */
  readonly mode: 'serve' | 'observe' | 'bypass';
  /** cluster: any node's copy for any Pod. online: never without the upstream's consent. */
  readonly access: 'cluster' | 'online';
  readonly peers: 'fallback' | 'prefer';
  /** For tags: which troubles of the upstream let nodes answer, {@link StaleCause} each. */
  readonly staleOn: readonly string[];
  /** For tags: how old the upstream's confirmation may be, milliseconds; 0: any age. */
  readonly staleMaxAgeMs: number;
}

/** A policy and what it is for. */
export interface PolicyRule extends PullPolicy {
  /** "registry/repository" with "*" for any part, such as "docker.io/library/*". */
  readonly match: string;
}

/** The first rule that matches decides; without one, everything is served. */
export class Policies {
  readonly #rules: readonly { readonly pattern: RegExp; readonly policy: PullPolicy }[];

  constructor(rules: readonly PolicyRule[]) {
    this.#rules = rules.map((rule) => ({ pattern: namePattern(rule.match), policy: rule }));
  }

  /**
   * @param name "registry/repository", normalised
   * @param peers what the upstream's own settings say about nodes
   */
  for(name: string, peers: PullPolicy['peers']): PullPolicy {
    const rule = this.#rules.find(({ pattern }) => pattern.test(name));
    return rule?.policy ?? { ...DEFAULT_POLICY, peers };
  }
}

/** What holds where no rule matches. */
export const DEFAULT_POLICY: PullPolicy = {
  mode: 'serve',
  access: 'cluster',
  peers: 'fallback',
  staleOn: ['unreachable', '5xx', '429'],
  staleMaxAgeMs: 0,
};

/** Whether nodes may answer when the upstream has not consented to this very request. */
export function allowsPeers(policy: PullPolicy): boolean {
  return policy.mode === 'serve' && policy.access === 'cluster';
}

/**
 * Whether a tag may be answered from nodes after this failure of its upstream.
 *
 * @param kind of the failure, in the registry's words: "refused", "server_error" …; "gone" for 404
 */
export function allowsStale(policy: PullPolicy, kind: string): boolean {
  return allowsPeers(policy) && policy.staleOn.includes(CAUSES.get(kind) ?? 'unreachable');
}

const CAUSES: ReadonlyMap<string, StaleCause> = new Map([
  ['server_error', '5xx'],
  ['rate_limited', '429'],
  ['gone', 'gone'],
]);
