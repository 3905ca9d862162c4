import type { Upstreams } from './upstream/upstreams.ts';

/** What a registry knows of one upstream, for people and tools. */
export interface UpstreamStatus {
  readonly registry: string;
  /** "unknown": it has not answered this process yet, nor failed. */
  readonly state: 'up' | 'outage' | 'unknown';
  /** When the outage began, ISO 8601. */
  readonly since?: string;
  /** The kind of failure that proved it: "refused", "timeout" … */
  readonly cause?: string;
  readonly reason?: string;
}

/** The state of every upstream that was asked for since the start. */
export function registryStatus(upstreams: Upstreams): { readonly upstreams: UpstreamStatus[] } {
  return {
    upstreams: upstreams.all().map(({ name, health, hasAnswered }) => {
      const { outage } = health;
      if (outage === undefined) return { registry: name, state: hasAnswered ? 'up' : 'unknown' };
      return {
        registry: name,
        state: 'outage',
        since: new Date(outage.sinceMs).toISOString(),
        cause: outage.cause.kind,
        reason: outage.cause.message,
      };
    }),
  };
}
