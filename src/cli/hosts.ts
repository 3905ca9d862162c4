import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

import { ContainerdClient } from '../agent/containerd/containerd-client.ts';
import { ContainerdConnection } from '../agent/containerd/containerd-connection.ts';
import { ConfigError, describeMistake } from '../config/config-error.ts';
import { loadConfig } from '../config/load.ts';
import type { Config } from '../config/schema.ts';
import { textFormats } from '../config/text-format.ts';
import { readContainerdConfig } from '../node/containerd-config/containerd-config.ts';
import {
  containerdRelease,
  type ContainerdRelease,
} from '../node/containerd-config/containerd-release.ts';
import { hostsDiff } from '../node/hosts/hosts-diff.ts';
import { HostsLock, isDiskTrouble } from '../node/hosts/hosts-lock.ts';
import { planHosts, type HostsPlan } from '../node/hosts/hosts-plan.ts';
import { hostsReport, reportText } from '../node/hosts/hosts-report.ts';
import { changesNode, hasChanges, install } from '../node/hosts/install.ts';
import { InstallState } from '../node/hosts/install-record.ts';
import { isInShare } from '../node/hosts/node-share.ts';
import { restore } from '../node/hosts/restore.ts';
import { selfTest } from '../node/hosts/self-test.ts';
import { UPSTREAMS_FILE, type UpstreamSettings } from '../node/hosts/upstream-files.ts';
import { mirrorUrlOf } from './mirror-url.ts';
import { waitingClock } from './waiting-clock.ts';

const VERSION_CALL_MS = 2000;
/** Another run has the lock while it writes, which takes milliseconds. */
const LOCK_WAIT_MS = 30_000;

/** What `salvor hosts` takes beside the settings. */
export interface HostsOptions {
  readonly verb: 'write' | 'show' | 'restore';
  /** Directories, separated by colons; undefined: as containerd is configured. */
  readonly configPath?: string;
  readonly containerdConfig: string;
  /** undefined: containerd is asked. */
  readonly containerdVersion?: string;
  readonly mirrorUrl?: string;
  readonly dryRun: boolean;
  readonly force: boolean;
  readonly json: boolean;
  /** How long to wait for the registry, such as "60s"; false: not at all, it is not asked. */
  readonly wait: string | false;
  /** Percentage of nodes, chosen by their names; undefined: as configured. */
  readonly share?: string;
  /** "uid:gid" of what the registry reads. */
  readonly owner?: string;
}

type HostsConfig = Pick<Config, 'node' | 'registry' | 'agent'>;

interface Context {
  readonly signal: AbortSignal;
  readonly writeOut: (text: string) => void;
  readonly writeError: (text: string) => void;
}

/**
 * `salvor hosts`: sends containerd to the registry of this node, shows how it is sent, or undoes it.
 *
 * @throws when nothing was done, or not all of it, with what to do
 */
export async function runHosts(
  config: HostsConfig,
  options: HostsOptions,
  context: Context,
): Promise<void> {
  const places = placesOf(config);
  if (options.verb === 'restore') return runRestore(places, options, context);
  const share = options.share === undefined ? config.node.wiredPercent : percentage(options.share);
  if (options.verb === 'write' && !isInShare(config.node.name, share)) {
    context.writeOut(`${config.node.name} is not among ${share} % of the nodes: nothing to do\n`);
    return;
  }
  const { makePlan, warnings, mirrorUrl } = await preparePlan(config, options, places);
  const { upstreamDirectory } = places;
  let plan = await makePlan();
  let isDue = options.verb === 'write' && (await hasChanges(plan, places));
  if (isDue && !options.dryRun) {
    if (options.wait !== false) {
      const waitMs = durationMs(options.wait);
      await selfTest({ mirrorUrl, waitMs, signal: context.signal }, { clock: waitingClock });
    }
    let trouble: Error | undefined;
    await using _held = await lock(places, 'salvor hosts write', context).catch(
      (error: unknown): undefined => {
        if (!(error instanceof Error) || !isDiskTrouble(error)) throw error;
        trouble = error;
      },
    );
    // Another run may have done it meanwhile.
    plan = await makePlan();
    isDue = await hasChanges(plan, places);
    if (trouble !== undefined) {
      if (changesNode(plan)) throw trouble;
      // What the registry reads is made anew; it is not on that disk, and this pod's alone.
      context.writeError(`warning: going on without a lock: ${trouble.message}\n`);
    }
    const owner = ownerOf(options.owner);
    if (isDue) await install(plan, { upstreamDirectory, ...(owner && { owner }) }, places);
  }
  const isDone = isDue && !options.dryRun;
  const files = hostsReport(plan, { isDone });
  if (options.json) {
    const report = { mirrorUrl, warnings, isChanged: isDone, files };
    context.writeOut(`${JSON.stringify(report, undefined, 2)}\n`);
    return;
  }
  if (options.dryRun) {
    const upstreams = await readFile(join(upstreamDirectory, UPSTREAMS_FILE), 'utf8').catch(
      () => '',
    );
    context.writeOut(hostsDiff(plan, { upstreamDirectory, upstreams }));
  }
  context.writeOut(warnings.map((warning) => `warning: ${warning}\n`).join('') + reportText(files));
  if (!isDue && options.verb === 'write') context.writeOut('nothing to change\n');
}

interface Places {
  readonly stateDirectory: string;
  readonly upstreamDirectory: string;
  readonly state: InstallState;
}

function placesOf(config: HostsConfig): Places {
  const { hostsFile } = config.registry;
  if (basename(hostsFile) !== UPSTREAMS_FILE) {
    throw new Error(`Cannot write registry.hostsFile: it must be called ${UPSTREAMS_FILE}`);
  }
  const { stateDirectory } = config.node;
  const state = new InstallState({ directory: join(stateDirectory, 'hosts') });
  return { stateDirectory, upstreamDirectory: dirname(hostsFile), state };
}

/** Of everything that is written or undone here: two runs at once would each undo half of the other. */
async function lock(places: Places, what: string, context: Context): Promise<HostsLock> {
  const { stateDirectory: directory } = places;
  const { signal, writeError } = context;
  return HostsLock.acquire(
    { directory, what, waitMs: LOCK_WAIT_MS, signal },
    { clock: waitingClock, onWait: (holder) => writeError(`waiting for ${holder}\n`) },
  );
}

async function runRestore(places: Places, options: HostsOptions, context: Context): Promise<void> {
  if (options.dryRun) {
    const { files } = await places.state.load();
    context.writeOut(files.map(({ path }) => `to be restored: ${path}\n`).join(''));
    return;
  }
  const { upstreamDirectory, state } = places;
  await using _held = await lock(places, 'salvor hosts restore', context);
  const outcomes = await restore({ upstreamDirectory, isForced: options.force }, { state });
  context.writeOut(
    options.json
      ? `${JSON.stringify({ files: outcomes }, undefined, 2)}\n`
      : outcomes
          .map(
            ({ path, outcome, reason }) => `${outcome}: ${path}${reason ? ` (${reason})` : ''}\n`,
          )
          .join(''),
  );
  const failed = outcomes.filter(({ outcome }) => outcome === 'failed');
  if (failed.length > 0) {
    throw new Error(`Cannot restore ${failed.length} of ${outcomes.length} files; run it again`);
  }
}

async function preparePlan(
  config: HostsConfig,
  options: HostsOptions,
  { state }: Places,
): Promise<{
  readonly makePlan: () => Promise<HostsPlan>;
  readonly warnings: string[];
  readonly mirrorUrl: string;
}> {
  const version = options.containerdVersion ?? (await askVersion(config));
  const release = containerdRelease(version);
  const { roots, warnings } = await rootsOf(options, release);
  const mirrorUrl = mirrorUrlOf(config.registry.listen, options.mirrorUrl);
  const planOptions = { roots, mirrorUrl, release, isForced: options.force };
  const makePlan = () => planHosts(planOptions, { state, check: checkSettings });
  return { makePlan, warnings, mirrorUrl };
}

/** @returns undefined when containerd does not answer: what all releases take is written then */
async function askVersion(config: HostsConfig): Promise<string | undefined> {
  const { socket, namespace } = config.agent.store.containerd;
  const connection = new ContainerdConnection({
    socketPath: socket,
    namespace,
    callTimeoutMs: VERSION_CALL_MS,
  });
  try {
    const client = new ContainerdClient(connection);
    return await client.version({ signal: AbortSignal.timeout(VERSION_CALL_MS) });
  } catch {
    return undefined;
  } finally {
    connection.close();
  }
}

async function rootsOf(
  options: HostsOptions,
  release: ContainerdRelease,
): Promise<{ readonly roots: readonly string[]; readonly warnings: string[] }> {
  const { containerdConfig: path } = options;
  const { version } = release;
  const found = await readContainerdConfig({ path, ...(version === undefined ? {} : { version }) });
  const warnings = found.problems.map((each) => `${each.path}: ${each.reason}`);
  if (version === undefined) {
    warnings.push('the version of containerd is not known; what all versions take is written');
  }
  const given = options.configPath?.split(':').filter((root) => root !== '');
  const roots = given ?? found.roots;
  const set = `set config_path = "/etc/containerd/certs.d" in ${path} and restart containerd`;
  if (roots.length === 0) {
    const reason =
      found.legacyMirrors.length > 0
        ? `it has registry.mirrors for ${found.legacyMirrors.join(', ')}; move them to hosts.toml, `
        : 'its config_path is not set; ';
    throw new Error(`Cannot send containerd anywhere: ${reason}${set}`);
  }
  const relative = roots.find((root) => !root.startsWith('/'));
  if (relative !== undefined) throw new Error(`Cannot use ${relative}: give an absolute path`);
  if (given === undefined && roots.length > 1 && found.pullsWith === 'transfer service') {
    warnings.push(
      `containerd takes config_path "${found.configPath}" for one directory and finds no ` +
        `hosts.toml; ${set}`,
    );
  }
  return { roots, warnings };
}

/** What the registry would say to these settings. */
async function checkSettings(
  settings: UpstreamSettings,
  headers: readonly Readonly<Record<string, string>>[],
): Promise<readonly string[]> {
  const { headerName, headerValue } = textFormats;
  const wrong = headers
    .flatMap((each) => Object.entries(each))
    .filter(([name, value]) => !headerName.matches(name) || !headerValue.matches(value))
    .map(([name]) => `the header ${name} may not be set, or its value is not printable`);
  try {
    const text = JSON.stringify(settings);
    await loadConfig({ command: 'config', readHosts: async () => ({ text }) });
    return wrong;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return [...wrong, ...error.mistakes.map(describeMistake)];
  }
}

function percentage(text: string): number {
  const value = Number(text.replace(/\s*%$/, ''));
  if (text.trim() !== '' && value >= 0 && value <= 100) return value;
  throw new Error(`Cannot use ${text} as a share: give a percentage from 0 to 100`);
}

function durationMs(text: string): number {
  const found = /^(\d+(?:\.\d+)?)(ms|s|m)$/.exec(text);
  const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000 };
  const unit = units[found?.[2] ?? ''];
  if (found === null || unit === undefined) {
    throw new Error(`Cannot use ${text} as a time to wait: give one such as 60s`);
  }
  return Number(found[1]) * unit;
}

function ownerOf(text: string | undefined): { uid: number; gid: number } | undefined {
  if (text === undefined) return undefined;
  const found = /^(\d+):(\d+)$/.exec(text);
  if (found === null) throw new Error(`Cannot use ${text} as an owner: give uid:gid in numbers`);
  return { uid: Number(found[1]), gid: Number(found[2]) };
}
