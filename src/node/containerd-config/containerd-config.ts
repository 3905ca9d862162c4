import { readConfigFiles, type ConfigProblem } from './config-files.ts';
import { containerdRelease } from './containerd-release.ts';
import { imageSettings, versionOf } from './image-settings.ts';
import { tableIn, type TomlTable } from '../toml-table.ts';

/** What 2.2 and later take for config_path where nothing is set. */
const DEFAULT_ROOTS = '/etc/containerd/certs.d:/etc/docker/certs.d';

export interface ContainerdConfigOptions {
  /** Of config.toml, as the node knows it. */
  readonly path: string;
  /** Of the containerd that runs, as it calls itself; left out where nobody knows. */
  readonly version?: string;
  /** Directory under which the node's own "/" is, where that is not "/". */
  readonly hostRoot?: string;
}

/** What containerd is set to do when it pulls for Kubernetes. */
export interface ContainerdConfig {
  /** Every file that was read, config.toml first; empty where there is none. */
  readonly files: readonly string[];
  /** What is wrong with the files; containerd may not start with it. */
  readonly problems: readonly ConfigProblem[];
  /** `version` of config.toml; undefined without a file. */
  readonly fileVersion: number | undefined;
  /** The setting as a whole, perhaps of several directories; empty: no hosts.toml is read. */
  readonly configPath: string;
  readonly isConfigPathDefault: boolean;
  /** The directories of configPath in their order. */
  readonly roots: readonly string[];
  /** Registries with mirrors in the old form, which goes with no config_path. */
  readonly legacyMirrors: readonly string[];
  /** Registries with certificates or credentials in the old form. */
  readonly legacyConfigs: readonly string[];
  /** Whether layers are thrown away after unpacking, so that there is nothing to serve. */
  readonly discardsUnpackedLayers: boolean;
  readonly snapshotter: string;
  /** Who pulls: CRI's own client, or from 2.1 on the transfer service. */
  readonly pullsWith: 'client' | 'transfer service';
  /** The setting that makes the client pull where the transfer service would. */
  readonly clientBecause: string | undefined;
}

/**
 * Reads how containerd is configured, with what its release takes for granted. Where the release
 * is not known, it is guessed from the `version` of config.toml.
 *
 * @throws when options.version is no version
 */
export async function readContainerdConfig(
  options: ContainerdConfigOptions,
): Promise<ContainerdConfig> {
  const release = containerdRelease(options.version);
  const { files, problems } = await readConfigFiles(options.path, options);
  const main = files.find(({ path }) => path === options.path);
  const fileVersion = main === undefined ? undefined : versionOf(main.content);
  const isKnown = release.version !== undefined;
  const isSecond = isKnown ? release.isAtLeast('2.0.0') : (fileVersion ?? 0) >= 3;
  const isAtLeast = (version: string): boolean =>
    isKnown ? release.isAtLeast(version) : (fileVersion ?? 0) >= 4;
  const settings = imageSettings(files, { isSecond, release });
  const registry = tableIn(settings, ['registry']);
  const legacyMirrors = Object.keys(tableIn(registry, ['mirrors']));
  const given = textOf(registry['config_path']);
  const isConfigPathDefault = given === '' && legacyMirrors.length === 0 && isAtLeast('2.2.0');
  const configPath = isConfigPathDefault ? DEFAULT_ROOTS : given;
  const clientBecause = isAtLeast('2.1.0') ? localPullReason(settings) : undefined;
  return {
    files: files.map(({ path }) => path),
    problems: [
      ...problems,
      ...versionProblems(files, fileVersion),
      ...(isKnown && !isSecond && (fileVersion ?? 0) > 2
        ? [{ path: options.path, reason: `containerd 1 does not know its version ${fileVersion}` }]
        : []),
      ...(given !== '' && legacyMirrors.length > 0
        ? [{ path: options.path, reason: 'config_path and registry.mirrors exclude each other' }]
        : []),
    ],
    fileVersion,
    configPath,
    isConfigPathDefault,
    roots: configPath.split(':').filter((root) => root !== ''),
    legacyMirrors,
    legacyConfigs: [
      ...Object.keys(tableIn(registry, ['configs'])),
      ...Object.keys(tableIn(registry, ['auths'])),
    ],
    discardsUnpackedLayers: settings['discard_unpacked_layers'] === true,
    snapshotter: textOf(settings['snapshotter']) || 'overlayfs',
    pullsWith: isAtLeast('2.1.0') && clientBecause === undefined ? 'transfer service' : 'client',
    clientBecause,
  };
}

/** containerd refuses to start when an imported file has a higher version than config.toml. */
function versionProblems(
  files: readonly { readonly path: string; readonly content: TomlTable }[],
  fileVersion: number | undefined,
): ConfigProblem[] {
  return files
    .filter(({ content }) => versionOf(content) > (fileVersion ?? Number.POSITIVE_INFINITY))
    .map(({ path, content }) => ({
      path,
      reason: `its version is ${versionOf(content)}, that of config.toml is ${fileVersion}`,
    }));
}

/** The first setting, in containerd's own order, that the transfer service does not know. */
function localPullReason(settings: TomlTable): string | undefined {
  const registry = tableIn(settings, ['registry']);
  const has = (key: string): boolean => Object.keys(tableIn(registry, [key])).length > 0;
  const reasons: readonly (readonly [string, boolean])[] = [
    ['use_local_image_pull', settings['use_local_image_pull'] === true],
    ['disable_snapshot_annotations', settings['disable_snapshot_annotations'] === false],
    ['discard_unpacked_layers', settings['discard_unpacked_layers'] === true],
    ['registry.mirrors', has('mirrors')],
    ['registry.configs', has('configs')],
    ['registry.auths', has('auths')],
    ['max_concurrent_downloads', (settings['max_concurrent_downloads'] ?? 3) !== 3],
    ['image_pull_with_sync_fs', settings['image_pull_with_sync_fs'] === true],
  ];
  return reasons.find(([, isGiven]) => isGiven)?.[0];
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
