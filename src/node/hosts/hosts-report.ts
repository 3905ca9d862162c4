import { DEFAULT_DIRECTORY } from './registry-directory.ts';
import type { HostsPlan, PlannedFile } from './hosts-plan.ts';

const ALL_OTHERS = 'all others';

/** One line of what `salvor hosts` says, as it is printed with --json. */
export interface HostsReportEntry {
  readonly path: string;
  /** As image names write it; "all others" for `_default`, nothing for what is no registry's. */
  readonly registry: string;
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
  const files = plan.files.flatMap((file) => {
    const { path, registries, action, chains, refusal, notes } = file;
    const state = isDone ? (chains.length === 0 ? 'left alone' : 'joined') : states[action];
    const why = refusal === undefined ? {} : { reason: refusal.reason, fix: refusal.fix };
    return registries.map((registry, index) => {
      const isAll = registry === DEFAULT_DIRECTORY;
      const urls = chains[index]?.endpoints.map(({ url }) => url) ?? [];
      const upstreams = isAll && chains.length > 0 ? [...urls, 'the registry itself'] : urls;
      return { path, registry: isAll ? ALL_OTHERS : registry, state, upstreams, ...why, notes };
    });
  });
  const passedOver = plan.passedOver.map(({ path, reason }) => ({
    path,
    registry: '',
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
    .map(({ path, registry, state, upstreams, reason, fix, notes }) => {
      const who = registry === '' ? '' : ` (${registry})`;
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
