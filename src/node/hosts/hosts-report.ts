import { DEFAULT_DIRECTORY } from './registry-directory.ts';
import type { HostsPlan, PlannedFile } from './hosts-plan.ts';

/** One line of what `salvor hosts` says, as it is printed with --json. */
export interface HostsReportEntry {
  readonly path: string;
  /** As image names write them; "all others" for `_default`. */
  readonly registries: readonly string[];
  readonly state: 'joined' | 'to be joined' | 'left alone' | 'to be withdrawn';
  /** What Salvor asks for them, in order; empty where containerd does not ask Salvor. */
  readonly upstreams: readonly string[];
  readonly reason?: string;
  readonly fix?: string;
  readonly notes: readonly string[];
}

const states: Readonly<Record<PlannedFile['action'], HostsReportEntry['state']>> = {
  none: 'joined',
  write: 'to be joined',
  leave: 'left alone',
  withdraw: 'to be withdrawn',
};

/** @param options.isDone the plan was carried out */
export function hostsReport(
  plan: HostsPlan,
  { isDone }: { readonly isDone: boolean },
): readonly HostsReportEntry[] {
  const files = plan.files.map(({ path, registries, action, chain, refusal, notes }) => {
    const state = isDone ? (chain === undefined ? 'left alone' : 'joined') : states[action];
    const isAll = registries.includes(DEFAULT_DIRECTORY);
    const urls = chain?.endpoints.map(({ url }) => url) ?? [];
    return {
      path,
      registries: registries.map((name) => (name === DEFAULT_DIRECTORY ? 'all others' : name)),
      state,
      upstreams: isAll && chain !== undefined ? [...urls, 'the registry itself'] : urls,
      ...(refusal === undefined ? {} : { reason: refusal.reason, fix: refusal.fix }),
      notes,
    };
  });
  const passedOver = plan.passedOver.map(({ path, reason }) => ({
    path,
    registries: [],
    state: 'left alone' as const,
    upstreams: [],
    reason,
    notes: [],
  }));
  return [...files, ...passedOver];
}

/** The report for people, a line or two a file. */
export function reportText(entries: readonly HostsReportEntry[]): string {
  return entries
    .map(({ path, registries, state, upstreams, reason, fix, notes }) => {
      const who = registries.length === 0 ? '' : ` (${registries.join(', ')})`;
      const lines = [
        `${state}: ${path}${who}`,
        ...(upstreams.length === 0 ? [] : [`  Salvor asks ${upstreams.join(', then ')}`]),
        ...(reason === undefined
          ? []
          : [`  because ${reason}${fix === undefined ? '' : `; ${fix}`}`]),
        ...notes.map((note) => `  ${note}`),
      ];
      return `${lines.join('\n')}\n`;
    })
    .join('');
}
