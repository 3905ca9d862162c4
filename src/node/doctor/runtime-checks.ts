import { containerdRelease } from '../containerd-config/containerd-release.ts';
import type { Facts } from './facts.ts';
import { finding, type Finding } from './finding.ts';

/** When the project mends a line no more, by its own plan. Nothing is said of lines to come. */
const endOfLife: readonly (readonly [line: string, range: string, end: string])[] = [
  ['1.6', '~1.6', '2025-08-31'],
  ['1.7', '~1.7', '2026-09-30'],
  ['2.0', '~2.0', '2027-03-31'],
  ['2.1', '~2.1', '2026-05-31'],
  ['2.2', '~2.2', '2026-11-30'],
  ['2.3', '~2.3', '2028-04-30'],
];

/** Whether containerd runs and is one that Salvor knows. */
export function checkRuntime({ runtime, nowMs }: Pick<Facts, 'runtime' | 'nowMs'>): Finding[] {
  if ('failure' in runtime) {
    const fix = 'systemctl status containerd; the socket is agent.store.containerd.socket';
    return [finding('containerd-unreachable', runtime.failure, fix)];
  }
  const release = containerdRelease(runtime.version);
  const found = `containerd ${runtime.version}`;
  if (!release.isAtLeast('1.6.0')) {
    return [finding('containerd-too-old', found, 'update containerd to a release in support')];
  }
  const past = endOfLife.find(
    ([, range, end]) => release.isWithin(range) && nowMs > Date.parse(`${end}T23:59:59Z`),
  );
  if (past === undefined) return [];
  const [line, , end] = past;
  const fix = 'update containerd, unless your distribution still mends this line';
  return [finding('containerd-end-of-life', `${found}; ${line} ended ${end}`, fix)];
}

/** Whether containerd is set to read hosts.toml, and to keep what others may need. */
export function checkConfig({
  config,
  settings,
}: Pick<Facts, 'config' | 'settings'>): readonly Finding[] {
  const file = settings.containerdConfig;
  const set = `config_path = "/etc/containerd/certs.d" in the registry section of ${file}, then systemctl restart containerd`;
  const found: Finding[] = config.problems.map(({ path, reason }) =>
    finding('containerd-config-broken', `${path}: ${reason}`, `correct ${path}`),
  );
  const { legacyMirrors } = config;
  if (legacyMirrors.length > 0) {
    const what = `registry.mirrors for ${legacyMirrors.join(', ')} in ${file}`;
    found.push(finding('legacy-mirrors', what, `move them to hosts.toml and set ${set}`));
  } else if (config.configPath === '') {
    found.push(finding('config-path-unset', `no config_path in ${file}`, set));
  }
  const isSplit = config.pullsWith === 'client' || config.roots.length < 2;
  if (!isSplit && !config.isOneDirectory) {
    const what = `config_path = "${config.configPath}"${config.isConfigPathDefault ? ' (by default)' : ''}`;
    const [first = '', ...rest] = config.roots;
    // The whole setting is looked up as one path; its first part ends in the colon.
    const last = rest.join(':');
    const fix =
      `${set}; without a restart, where nothing else is in ${last}: ` +
      `mkdir -p '${first}:${last.replace(/\/[^/]*$/, '')}' && ln -s ${first} '${config.configPath}'`;
    found.push(finding('two-roots', what, fix));
  }
  for (const path of config.ignoredTables) {
    const what = `plugins."io.containerd.grpc.v1.cri" in ${path}, whose version is 3 or later`;
    const fix = 'write it as plugins."io.containerd.cri.v1.images", and restart containerd';
    found.push(finding('ignored-table', what, fix));
  }
  if (config.discardsUnpackedLayers && settings.isKeeperOff) {
    const what = 'discard_unpacked_layers = true, and agent.keeper.mode is off';
    found.push(
      finding('layers-discarded', what, 'agent: { keeper: { mode: on } }, or set it to false'),
    );
  }
  if (config.isLazySnapshotter) {
    const what = `snapshotter = "${config.snapshotter}"`;
    const fix = 'use overlayfs for images that have to survive an outage';
    found.push(finding('lazy-snapshotter', what, fix));
  }
  return found;
}
