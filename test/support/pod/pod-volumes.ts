import { chmod, chown, cp, mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { KubeObject, Rendered } from '../../chart/render.ts';

/** Where the things are on this machine that volumes stand for. */
export interface VolumeSources {
  readonly rendered: Rendered;
  /** A directory for each Secret, by name. */
  readonly secrets: Readonly<Record<string, string>>;
  /** A directory for each path on the node. */
  readonly hostPaths: Readonly<Record<string, string>>;
  /** Of the service account's projected volume. */
  readonly apiToken: Readonly<Record<string, string>>;
}

/**
 * Makes a pod's volumes as a kubelet does: files of ConfigMaps, Secrets and tokens for the pod's
 * group, empty directories that everybody may write, directories of the node as they are.
 *
 * @returns the directory of each volume, by its name
 * @throws when a volume needs something that is not there
 */
export async function makeVolumes(
  options: { readonly directory: string; readonly spec: KubeObject },
  sources: VolumeSources,
): Promise<ReadonlyMap<string, string>> {
  const group = options.spec['securityContext'].fsGroup as number;
  const made = new Map<string, string>();
  for (const volume of options.spec['volumes'] as KubeObject[]) {
    const name = volume['name'] as string;
    made.set(
      name,
      await makeVolume(volume, { ...sources, group, at: join(options.directory, name) }),
    );
  }
  return made;
}

async function makeVolume(
  volume: KubeObject,
  {
    apiToken,
    at,
    group,
    hostPaths,
    rendered,
    secrets,
  }: VolumeSources & { group: number; at: string },
): Promise<string> {
  if (volume['hostPath'] !== undefined) {
    const { path, type } = volume['hostPath'] as { path: string; type: string };
    const source = hostPaths[path];
    if (source === undefined) throw new Error(`Cannot mount ${path}: the node has no such path`);
    if (type === 'DirectoryOrCreate') await mkdir(source, { recursive: true, mode: 0o755 });
    return source;
  }
  await mkdir(at, { recursive: true });
  if (volume['emptyDir'] !== undefined) {
    await chown(at, 0, group);
    await chmod(at, 0o2777);
    return at;
  }
  if (volume['configMap'] !== undefined) {
    const { data } = rendered.one('ConfigMap', volume['configMap'].name as string);
    for (const [file, text] of Object.entries(data as Record<string, string>)) {
      await writeFile(join(at, file), text, { mode: 0o644 });
    }
    return at;
  }
  if (volume['secret'] !== undefined) {
    const { defaultMode, secretName } = volume['secret'] as Record<string, string & number>;
    const source = secrets[secretName!];
    if (source === undefined)
      throw new Error(`Cannot mount ${secretName}: there is no such Secret`);
    await cp(source, at, { recursive: true });
    await giveToGroup(at, { group, mode: defaultMode! });
    return at;
  }
  if (volume['projected'] === undefined) throw new Error(`Cannot make ${JSON.stringify(volume)}`);
  for (const [file, text] of Object.entries(apiToken)) await writeFile(join(at, file), text);
  await giveToGroup(at, { group, mode: volume['projected'].defaultMode as number });
  return at;
}

async function giveToGroup(
  directory: string,
  { group, mode }: { readonly group: number; readonly mode: number },
): Promise<void> {
  for (const file of await readdir(directory)) {
    await chown(join(directory, file), 0, group);
    await chmod(join(directory, file), mode);
  }
}
