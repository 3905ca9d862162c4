import { checkClock, checkMembers, checkReach } from './cluster-checks.ts';
import type { Facts } from './facts.ts';
import type { Finding } from './finding.ts';
import { checkHosts } from './hosts-checks.ts';
import {
  checkAgent,
  checkCanary,
  checkDisks,
  checkIdentity,
  checkOwnImage,
  checkPolicies,
  checkProxy,
  checkPulls,
  checkRegistry,
  checkShare,
  checkUpstreams,
} from './node-checks.ts';
import { checkConfig, checkRuntime } from './runtime-checks.ts';

type FactName = keyof Facts;

/** What was learnt: each fact, why it is not known, or "none" where there is none to know. */
export type Gathered = {
  readonly [Name in FactName]?:
    { readonly value: Facts[Name] } | { readonly failure: string } | 'none';
};

interface Check {
  readonly needs: readonly FactName[];
  readonly look: (facts: Facts) => readonly Finding[];
}

/** All checks by name, in the order in which their findings are shown. */
const checks = {
  containerd: { needs: ['runtime', 'nowMs'], look: checkRuntime },
  config: { needs: ['config', 'settings'], look: checkConfig },
  hosts: { needs: ['hosts', 'settings'], look: checkHosts },
  registry: { needs: ['registry', 'settings'], look: checkRegistry },
  canary: { needs: ['canary', 'settings'], look: checkCanary },
  pulls: { needs: ['pulls'], look: checkPulls },
  agent: { needs: ['agent'], look: checkAgent },
  members: { needs: ['members', 'settings', 'nowMs'], look: checkMembers },
  reach: { needs: ['reach', 'settings'], look: checkReach },
  identity: { needs: ['identity', 'nowMs'], look: checkIdentity },
  clock: { needs: ['reach'], look: checkClock },
  disk: { needs: ['disks'], look: checkDisks },
  upstreams: { needs: ['upstreams'], look: checkUpstreams },
  proxy: { needs: ['proxy', 'settings'], look: checkProxy },
  image: { needs: ['ownImage'], look: checkOwnImage },
  policies: { needs: ['settings'], look: checkPolicies },
  share: { needs: ['settings'], look: checkShare },
} as const satisfies Readonly<Record<string, Check>>;

export type CheckName = keyof typeof checks;

export const checkNames = Object.keys(checks) as readonly CheckName[];

/** What was found, and what could not be looked at. */
export interface Diagnosis {
  readonly findings: readonly Finding[];
  readonly unchecked: readonly { readonly check: CheckName; readonly reason: string }[];
}

/** The facts that checks need, each once. */
export function factsFor(names: readonly CheckName[]): readonly FactName[] {
  return [...new Set(names.flatMap((name) => checks[name].needs as readonly FactName[]))];
}

/** Looks at facts. A check whose facts are not known is left out and named, not passed. */
export function diagnose(gathered: Gathered, names: readonly CheckName[] = checkNames): Diagnosis {
  const findings: Finding[] = [];
  const unchecked: { check: CheckName; reason: string }[] = [];
  for (const name of names) {
    const { needs, look }: Check = checks[name];
    const parts = needs.map((need) => gathered[need] ?? { failure: `${need} was not gathered` });
    if (parts.includes('none')) continue;
    const failed = parts.find((part) => typeof part === 'object' && 'failure' in part);
    if (failed !== undefined && 'failure' in failed) {
      unchecked.push({ check: name, reason: failed.failure });
      continue;
    }
    const known = needs.map((need, index) => {
      const part = parts[index];
      return [need, typeof part === 'object' && 'value' in part ? part.value : undefined];
    });
    findings.push(...look(Object.fromEntries(known) as Facts));
  }
  return { findings, unchecked };
}

/** 0: nothing; 1: warnings only; 2: errors; 3: no errors, but not all could be checked. */
export function exitCodeOf({ findings, unchecked }: Diagnosis): 0 | 1 | 2 | 3 {
  if (findings.some(({ severity }) => severity === 'error')) return 2;
  if (unchecked.length > 0) return 3;
  return findings.some(({ severity }) => severity === 'warning') ? 1 : 0;
}

/** For people: the worst first, what could not be checked last. */
export function diagnosisText({ findings, unchecked }: Diagnosis): string {
  const order = ['error', 'warning', 'info'];
  const sorted = findings.toSorted((a, b) => order.indexOf(a.severity) - order.indexOf(b.severity));
  const lines = sorted.flatMap(({ id, severity, found, why, fix }) => [
    `${severity}: ${found} [${id}]`,
    `  why: ${why}`,
    `  fix: ${fix}`,
  ]);
  const open = unchecked.map(({ check, reason }) => `not checked: ${check}: ${reason}`);
  const all = [...lines, ...open];
  return `${(all.length === 0 ? ['nothing found'] : all).join('\n')}\n`;
}
