import { access, chmod, mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { isDeepStrictEqual } from 'node:util';

import type { Original } from './found-file.ts';
import type { HostsPlan, PlannedFile } from './hosts-plan.ts';
import type { InstallRecord, InstallState, RecordedFile } from './install-record.ts';
import { putBack, replaceFile, type OnStep } from './replace-file.ts';
import { isWritten, writeUpstreamFiles } from './upstream-files.ts';

export interface InstallOptions {
  /** Where the registry reads its upstreams. */
  readonly upstreamDirectory: string;
  /** Of the files there, which may hold secrets that the registry must read. */
  readonly owner?: { readonly uid: number; readonly gid: number };
}

/** Whether a plan would change anything. */
export async function hasChanges(
  plan: HostsPlan,
  { upstreamDirectory }: Pick<InstallOptions, 'upstreamDirectory'>,
): Promise<boolean> {
  return changesNode(plan) || !(await isWritten(upstreamDirectory, plan.upstreams.all()));
}

/** Whether it would change a hosts.toml. */
export function changesNode({ files }: Pick<HostsPlan, 'files'>): boolean {
  return files.some(({ action }) => action === 'write' || action === 'withdraw');
}

/**
 * Does what a plan says. Originals and the record of all that is to come are on disk before the
 * first change; the registry is told of its upstreams before containerd is sent to it. Ended at
 * any moment, each file is the old or the new one, and `restore` knows what to do.
 *
 * @throws when the disk cannot be written; what was done so far is in the record
 */
export async function install(
  plan: HostsPlan,
  options: InstallOptions,
  dependencies: { readonly state: InstallState; readonly onStep?: OnStep },
): Promise<void> {
  const { state, onStep } = dependencies;
  const writes = plan.files.filter(({ action }) => action === 'write');
  for (const { record, baseBytes } of writes) {
    if (record?.original.kind === 'file' && baseBytes !== undefined) {
      await state.keep(record.original.sha256, baseBytes);
    }
  }
  const untouched = plan.record.files.filter(
    ({ path }) => !writes.some((each) => each.path === path),
  );
  const recorded = writes.map(({ record }) => record).filter((each) => each !== undefined);
  const upstreamDirectories = plan.upstreams.isEmpty
    ? []
    : await missing(options.upstreamDirectory);
  const begun: InstallRecord = {
    version: 1,
    files: [...untouched, ...recorded],
    directories: [
      ...new Set([...plan.record.directories, ...plan.directories, ...upstreamDirectories]),
    ],
  };
  // Where only the registry's files are missing, as in a pod that is new on a wired node, a disk that is
  // full must not keep it from starting.
  const isKnown = isDeepStrictEqual(asJson(begun), asJson(plan.record));
  if (!isKnown) await state.save(begun);
  await writeUpstreamFiles(options.upstreamDirectory, plan.upstreams.all(), {
    ...(options.owner === undefined ? {} : { owner: options.owner }),
    onStep,
  });
  for (const directory of plan.directories) {
    await mkdir(directory, { recursive: true });
    await chmod(directory, 0o755);
    await onStep?.(`made ${directory}`);
  }
  for (const file of writes) await writeHosts(file, onStep);
  const withdrawn = plan.files.filter(({ action }) => action === 'withdraw');
  for (const { record } of withdrawn) if (record) await putOriginalBack(record, { state, onStep });
  const ended = { ...begun, files: settled(begun.files, plan.files) };
  if (!isKnown || !isDeepStrictEqual(asJson(ended), asJson(begun))) await state.save(ended);
}

function asJson(record: InstallRecord): unknown {
  return JSON.parse(JSON.stringify(record));
}

async function writeHosts(
  { path, after = '', found, record }: PlannedFile,
  onStep?: OnStep,
): Promise<void> {
  const original = found?.original ?? record?.original ?? { kind: 'absent' };
  await replaceFile(path, after, { ...ownership(original), onStep });
}

/** As the file had it; a file that comes in place of a link is as what that leads to. */
function ownership(original: Original): { mode: number; uid?: number; gid?: number } {
  if (original.kind === 'absent') return { mode: 0o644 };
  const { mode = 0o644, uid, gid } = original;
  return { mode, uid, gid };
}

/** Puts back what there was before a file was written. */
export async function putOriginalBack(
  { path, original }: RecordedFile,
  dependencies: { readonly state: InstallState; readonly onStep?: OnStep | undefined },
): Promise<void> {
  const { state, onStep } = dependencies;
  const bytes = original.kind === 'file' ? await state.original(original.sha256) : undefined;
  await putBack(path, original, { bytes, onStep });
}

/** What is left of the record when all is done: one hash a file, nothing of those withdrawn. */
function settled(
  files: readonly RecordedFile[],
  planned: readonly PlannedFile[],
): readonly RecordedFile[] {
  return files
    .filter(({ path }) => !planned.some((each) => each.path === path && each.action === 'withdraw'))
    .map((file) => {
      const isDone = planned.some(({ path, action }) => path === file.path && action === 'write');
      return isDone ? { ...file, written: file.written.slice(-1) } : file;
    });
}

async function missing(directory: string): Promise<string[]> {
  const isThere = await access(directory).then(
    () => true,
    () => false,
  );
  return isThere || dirname(directory) === directory
    ? []
    : [...(await missing(dirname(directory))), directory];
}
