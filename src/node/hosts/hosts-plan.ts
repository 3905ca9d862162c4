import { readFile, realpath } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';

import type { ContainerdRelease } from '../containerd-config/containerd-release.ts';
import { hasBootstrapEntry, withoutBootstrapEntry } from './bootstrap-entry.ts';
import { certFilesAsToml, findCertFiles } from './cert-files.ts';
import { findFile, sha256, type FoundFile, type Original } from './found-file.ts';
import { hasOwnHost, hostChain, isPlainChain, type HostChain } from './host-chain.ts';
import { parseHostsToml, RefusalError, type HostsToml, type Refusal } from './hosts-toml.ts';
import type { InstallRecord, InstallState, RecordedFile } from './install-record.ts';
import { findOwnEntry, ownEntry, withOwnEntry, withoutOwnEntry } from './own-entry.ts';
import { DEFAULT_DIRECTORY, findDirectories } from './registry-directory.ts';
import type { PassedOver, RegistryDirectory } from './registry-directory.ts';
import { UpstreamFiles, type UpstreamSettings } from './upstream-files.ts';

/** What is to become of one hosts.toml. */
export interface PlannedFile {
  readonly path: string;
  /** As image names write them; `_default` for all others. Several share a file through links. */
  readonly registries: readonly string[];
  /**
   * write: Salvor's entry comes in, or is brought up to date; none: it is in already; leave: it
   * stays without; withdraw: it comes out, as it would not do what containerd did.
   */
  readonly action: 'write' | 'none' | 'leave' | 'withdraw';
  readonly found: FoundFile | undefined;
  /** For write: the whole new text, and what is recorded of it. */
  readonly after: string | undefined;
  readonly record: RecordedFile | undefined;
  /** What there was before Salvor, or without it. */
  readonly baseBytes: Buffer | undefined;
  readonly refusal: Refusal | undefined;
  readonly notes: readonly string[];
  /** What Salvor asks for each of the registries; empty where containerd does not ask Salvor. */
  readonly chains: readonly HostChain[];
}

/** Everything that `salvor hosts` is about to do. */
export interface HostsPlan {
  readonly files: readonly PlannedFile[];
  readonly passedOver: readonly PassedOver[];
  readonly upstreams: UpstreamFiles;
  /** Directories that are missing, outermost first. */
  readonly directories: readonly string[];
  readonly record: InstallRecord;
}

export interface HostsPlanOptions {
  /** The directories of containerd's config_path. */
  readonly roots: readonly string[];
  readonly mirrorUrl: string;
  readonly release: ContainerdRelease;
  /** Whether changes that somebody made to Salvor's own entry may be lost. */
  readonly isForced?: boolean;
}

interface Dependencies {
  readonly state: Pick<InstallState, 'load' | 'original'>;
  /** @returns what the registry would not accept of its settings, and of headers in files */
  readonly check: (
    settings: UpstreamSettings,
    headers: readonly Readonly<Record<string, string>>[],
  ) => Promise<readonly string[]>;
}

interface Base {
  readonly bytes: Buffer | undefined;
  readonly original: Original;
  readonly notes: readonly string[];
  /** Somebody has changed the entry itself. */
  readonly isEntryChanged: boolean;
}

/** Looks at every hosts.toml that is in effect and decides what to do; changes nothing. */
export async function planHosts(
  options: HostsPlanOptions,
  dependencies: Dependencies,
): Promise<HostsPlan> {
  const record = await dependencies.state.load();
  const { directories, passedOver, defaultRoot } = await findDirectories(options.roots);
  const missing: string[] = [];
  const all = [...directories];
  if (!directories.some(({ registry }) => registry === undefined)) {
    const path = join(defaultRoot, DEFAULT_DIRECTORY);
    missing.push(...(await missingDirectories(path)));
    all.push({ path, realPath: await realPathOf(path), registry: undefined });
  }
  const files: PlannedFile[] = [];
  for (const group of Map.groupBy(all, ({ realPath }) => realPath).values()) {
    files.push(await planFile(group, options, { ...dependencies, record }));
  }
  const isDefaultWired = files.some(
    ({ action, registries }) => isWired(action) && registries.includes(DEFAULT_DIRECTORY),
  );
  return {
    files,
    passedOver,
    upstreams: upstreamsOf(files),
    directories: isDefaultWired ? missing : [],
    record,
  };
}

function isWired(action: PlannedFile['action']): boolean {
  return action === 'write' || action === 'none';
}

async function planFile(
  directories: readonly RegistryDirectory[],
  options: HostsPlanOptions,
  dependencies: Dependencies & { readonly record: InstallRecord },
): Promise<PlannedFile> {
  const [{ realPath }] = directories as [RegistryDirectory];
  const path = join(realPath, 'hosts.toml');
  const registries = directories.map(({ registry }) => registry ?? DEFAULT_DIRECTORY);
  const recorded = dependencies.record.files.find((each) => each.path === path);
  const nothing = { after: undefined, chains: [] };
  let found: FoundFile | undefined;
  let base: Base | undefined;
  try {
    found = await findFile(path);
    base = await baseOf(found, recorded, dependencies);
    const joined = await joinFile(base, directories, options);
    await refuseUnacceptable(registries, joined.chains, dependencies);
    const { chains } = joined;
    const isBaked = hasBootstrapEntry(base.bytes?.toString('utf8') ?? '');
    const bootstrapNotes = isBaked ? ['the entry of `salvor hosts bootstrap` is replaced'] : [];
    const notes = [
      ...new Set([...base.notes, ...bootstrapNotes, ...chains.flatMap((each) => each.notes)]),
    ];
    const common = { path, registries, found, refusal: undefined, baseBytes: base.bytes, chains };
    const isOurs = joined.after === undefined;
    if (isOurs) notes.push('it names Salvor already, by somebody else');
    const isKept = base.isEntryChanged && options.isForced !== true;
    if (isKept) notes.push("Salvor's entry was changed and is left so; --force writes it anew");
    const isUpToDate = recorded !== undefined && found.sha256 === sha256(joined.after ?? '');
    if (isOurs || isKept || isUpToDate) {
      const after = undefined;
      return { ...common, action: 'none', after, record: recorded, notes };
    }
    const after = joined.after;
    const hash = sha256(after);
    const before = recorded !== undefined && isWritten(found, recorded) ? recorded.written : [];
    return {
      ...common,
      action: 'write',
      after,
      record: {
        path,
        original: base.original,
        written: [...before.filter((each) => each !== hash), hash],
        entry: ownEntry(options.mirrorUrl, options.release),
      },
      notes,
    };
  } catch (error) {
    if (!(error instanceof RefusalError)) throw error;
    const isIn = found !== undefined && recorded !== undefined && isWritten(found, recorded);
    const action = isIn ? 'withdraw' : 'leave';
    const about = { path, registries, found, refusal: error, notes: base?.notes ?? [] };
    const baseBytes = base?.bytes;
    return { ...nothing, ...about, action, baseBytes, record: isIn ? recorded : undefined };
  }
}

function isWritten(found: FoundFile, recorded: RecordedFile): boolean {
  return found.sha256 !== undefined && recorded.written.includes(found.sha256);
}

/** What there would be without Salvor. */
async function baseOf(
  found: FoundFile,
  recorded: RecordedFile | undefined,
  { state }: Dependencies,
): Promise<Base> {
  const { bytes, original } = found;
  const asItIs = { bytes, original, notes: [], isEntryChanged: false };
  if (recorded !== undefined && isWritten(found, recorded)) {
    const before = recorded.original;
    const kept = { original: before, notes: [], isEntryChanged: false };
    if (before.kind === 'absent') return { ...kept, bytes: undefined };
    if (before.kind === 'file') return { ...kept, bytes: await state.original(before.sha256) };
    // What a link leads to may have changed, and counts.
    const target = resolve(dirname(recorded.path), before.target);
    return { ...kept, bytes: await readFile(target).catch(() => undefined) };
  }
  const entry = bytes === undefined ? undefined : findOwnEntry(bytes.toString('utf8'));
  if (entry === undefined || bytes === undefined) {
    const isReplaced = recorded !== undefined && !isSame(original, recorded.original);
    return { ...asItIs, notes: isReplaced ? ['it was replaced since, and is joined anew'] : [] };
  }
  const rest = Buffer.from(withoutOwnEntry(bytes.toString('utf8')));
  return {
    bytes: rest,
    original: original.kind === 'file' ? { ...original, sha256: sha256(rest) } : original,
    notes: ['it was changed since; the changes are kept'],
    isEntryChanged: recorded !== undefined && recorded.entry.trim() !== entry.trim(),
  };
}

/** Whether two originals are the same file or link; dates do not count. */
export function isSame(a: Original, b: Original): boolean {
  if (a.kind === 'file' && b.kind === 'file') return a.sha256 === b.sha256;
  if (a.kind === 'link' && b.kind === 'link') return a.target === b.target;
  return a.kind === b.kind;
}

async function joinFile(
  base: Base,
  directories: readonly RegistryDirectory[],
  { mirrorUrl, release }: HostsPlanOptions,
): Promise<{ readonly after: string | undefined; readonly chains: readonly HostChain[] }> {
  const [{ path, registry }] = directories as [RegistryDirectory];
  const certificates = await findCertFiles(path).catch(() => ({ ca: [], client: [] }));
  // Neighbours are for as long as Salvor is not here: they are no way of its own to a registry.
  const given = base.bytes === undefined ? '' : withoutBootstrapEntry(textOf(base.bytes));
  const isEmpty = given === '';
  const text = isEmpty ? certFilesAsToml(certificates) : given;
  const file = parseHostsToml(text);
  const hasCertificates = certificates.ca.length + certificates.client.length > 0;
  if (!isEmpty) refuseHostless(file, release, hasCertificates);
  if (isEmpty && hasCertificates && registry === undefined) {
    throw new RefusalError('it has certificates for all registries', 'name hosts for them');
  }
  const chains = await Promise.all(
    directories.map((each) =>
      hostChain(file, { registry: each.registry, directory: each.path, mirrorUrl }),
    ),
  );
  if (hasOwnHost(file, mirrorUrl)) return { after: undefined, chains };
  return { after: withOwnEntry(text, ownEntry(mirrorUrl, release)), chains };
}

function textOf(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new RefusalError('it is not UTF-8', 'correct it: containerd ignores all of it');
  }
}

/** Up to 1.7.31 a file without hosts is ignored; with Salvor's it would no longer be. */
function refuseHostless(
  file: HostsToml,
  release: ContainerdRelease,
  hasCertificates: boolean,
): void {
  if (file.hosts.length > 0 || release.isAtLeast('1.7.32')) return;
  const { server } = file;
  const saysNothing =
    server.url === undefined &&
    server.ca.length + server.client.length + Object.keys(server.headers).length === 0;
  if (saysNothing && !hasCertificates) return;
  throw new RefusalError(
    'it names no host, and containerd before 1.7.32 ignores such a file',
    'add a [host."URL"], or give --containerd-version if it is newer',
  );
}

async function refuseUnacceptable(
  registries: readonly string[],
  chains: readonly HostChain[],
  { check }: Dependencies,
): Promise<void> {
  for (const [index, chain] of chains.entries()) {
    const headers = chain.endpoints.map((endpoint) => endpoint.headers);
    const mistakes = await check(settingsOf(registries[index] ?? '', chain), headers);
    if (mistakes.length === 0) continue;
    const reason = `the registry would not accept it: ${mistakes.join('; ')}`;
    throw new RefusalError(reason, 'correct it');
  }
}

function settingsOf(registry: string, chain: HostChain): UpstreamSettings {
  const files = new UpstreamFiles();
  if (registry === DEFAULT_DIRECTORY) files.addMirrors(chain);
  else files.addUpstream(registry, chain);
  return files.settings;
}

function upstreamsOf(files: readonly PlannedFile[]): UpstreamFiles {
  const upstreams = new UpstreamFiles();
  const wired = files.flatMap(({ chains, registries }) =>
    chains.map((chain, index) => ({ chain, registry: registries[index] ?? '' })),
  );
  const all = wired.find(({ registry }) => registry === DEFAULT_DIRECTORY)?.chain;
  if (all !== undefined) upstreams.addMirrors(all);
  const hasMirrors = (all?.endpoints.length ?? 0) > 0;
  for (const { chain, registry } of wired) {
    if (registry === DEFAULT_DIRECTORY) continue;
    if (!isPlainChain(chain, registry)) upstreams.addUpstream(registry, chain);
    else if (hasMirrors) upstreams.addUpstream(registry, undefined);
  }
  return upstreams;
}

/** A path behind all links, the parts of it that are not there yet as they will be. */
async function realPathOf(path: string): Promise<string> {
  const parent = dirname(path);
  if (parent === path) return path;
  return realpath(path).catch(async () => join(await realPathOf(parent), basename(path)));
}

async function missingDirectories(path: string): Promise<string[]> {
  const isThere = await realpath(path).then(
    () => true,
    () => false,
  );
  if (isThere || dirname(path) === path) return [];
  return [...(await missingDirectories(dirname(path))), await realPathOf(path)];
}
