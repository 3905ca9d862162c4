import { packagedContainerd, type ContainerdVersion } from './containerd-version.ts';
import { hostPlatform } from './image.ts';
import { renderToml, type TomlTable } from './toml.ts';

/** The paths of one daemon and what is special about it. */
export interface ContainerdConfig {
  /** The packaged one unless told. */
  readonly version?: ContainerdVersion;
  readonly root: string;
  readonly state: string;
  readonly socket: string;
  readonly ttrpcSocket: string;
  readonly certsDirectory: string;
  readonly cniDirectory: string;
  readonly snapshotter: string;
  readonly discardUnpackedLayers: boolean;
}

/** A mirror in hosts.toml. */
export interface Mirror {
  readonly url: string;
  /** Sent with every request, such as a shared secret. */
  readonly headers?: Readonly<Record<string, string>>;
}

// They look for devices and file systems that a test machine need not have, and warn about it.
const disabledPluginsOf1 = [
  'io.containerd.snapshotter.v1.aufs',
  'io.containerd.snapshotter.v1.btrfs',
  'io.containerd.snapshotter.v1.devmapper',
  'io.containerd.snapshotter.v1.zfs',
  'io.containerd.internal.v1.restart',
  'io.containerd.internal.v1.tracing',
  'io.containerd.monitor.v1.cgroups',
  'io.containerd.tracing.processor.v1.otlp',
];
// The same, and the last one has a socket of the machine's.
const disabledPluginsOf2 = [
  'io.containerd.snapshotter.v1.blockfile',
  'io.containerd.snapshotter.v1.btrfs',
  'io.containerd.snapshotter.v1.devmapper',
  'io.containerd.snapshotter.v1.erofs',
  'io.containerd.snapshotter.v1.zfs',
  'io.containerd.differ.v1.erofs',
  'io.containerd.mount-handler.v1.erofs',
  'io.containerd.internal.v1.tracing',
  'io.containerd.monitor.container.v1.restart',
  'io.containerd.monitor.task.v1.cgroups',
  'io.containerd.tracing.processor.v1.otlp',
  'io.containerd.nri.v1.nri',
];

/** Renders the daemon's config.toml: CRI for pulls only, nothing shared with another daemon. */
export function renderContainerdConfig(config: ContainerdConfig): string {
  const version = config.version ?? packagedContainerd;
  return renderToml({
    version: version.configVersion,
    root: config.root,
    state: config.state,
    disabled_plugins: version.configVersion === 2 ? disabledPluginsOf1 : disabledPluginsOf2,
    // From 2.x on only this level says who pulls.
    debug: { format: 'json', level: version.configVersion === 2 ? 'info' : 'debug' },
    ...(version.configVersion !== 4 && {
      grpc: { address: config.socket },
      ttrpc: { address: config.ttrpcSocket },
    }),
    plugins: {
      'io.containerd.internal.v1.opt': { path: `${config.root}/opt` },
      ...(version.configVersion === 4 && {
        'io.containerd.server.v1.grpc': { address: config.socket },
        'io.containerd.server.v1.ttrpc': { address: config.ttrpcSocket },
      }),
      ...(version.configVersion === 2 ? criOf1(config) : criOf2(config, version)),
    },
  });
}

function criOf1(config: ContainerdConfig): TomlTable {
  return {
    'io.containerd.grpc.v1.cri': {
      stream_server_address: '127.0.0.1',
      stream_server_port: '0',
      disable_cgroup: true,
      disable_apparmor: true,
      restrict_oom_score_adj: true,
      cni: { bin_dir: config.cniDirectory, conf_dir: config.cniDirectory },
      containerd: {
        snapshotter: config.snapshotter,
        discard_unpacked_layers: config.discardUnpackedLayers,
      },
      registry: { config_path: config.certsDirectory },
    },
  };
}

/** From 2.0 on CRI is three plugins, and from 2.1 on the transfer service pulls for it. */
function criOf2(config: ContainerdConfig, { rangeBytes }: ContainerdVersion): TomlTable {
  return {
    'io.containerd.grpc.v1.cri': { stream_server_address: '127.0.0.1', stream_server_port: '0' },
    'io.containerd.cri.v1.images': {
      snapshotter: config.snapshotter,
      discard_unpacked_layers: config.discardUnpackedLayers,
      // One directory: of a list with several the transfer service reads none.
      registry: { config_path: config.certsDirectory },
    },
    'io.containerd.cri.v1.runtime': {
      disable_apparmor: true,
      restrict_oom_score_adj: true,
      cni: { bin_dirs: [config.cniDirectory], conf_dir: config.cniDirectory },
    },
    'io.containerd.image-verifier.v1.bindir': { bin_dir: `${config.root}/verifiers` },
    'io.containerd.transfer.v1.local': {
      // Without it only the snapshotter that is containerd's default can be unpacked to.
      unpack_config: [
        {
          platform: `${hostPlatform.os}/${hostPlatform.architecture}`,
          snapshotter: config.snapshotter,
        },
      ],
      ...(rangeBytes !== undefined && {
        max_concurrent_downloads: 3,
        concurrent_layer_fetch_buffer: rangeBytes,
      }),
    },
  };
}

/**
 * Renders a hosts.toml that every containerd from 1.6 on understands.
 *
 * @param options.server where to go when no mirror helps; the image's own registry unless told
 */
export function renderHostsToml(
  mirrors: readonly Mirror[],
  options: { readonly server?: string } = {},
): string {
  const server = options.server === undefined ? [] : [`server = ${JSON.stringify(options.server)}`];
  const hosts = mirrors.flatMap(({ url, headers }) => [
    `[host.${JSON.stringify(url)}]`,
    'capabilities = ["pull", "resolve"]',
    ...(headers === undefined ? [] : [`[host.${JSON.stringify(url)}.header]`]),
    ...Object.entries(headers ?? {}).map(([name, value]) => `${name} = ${JSON.stringify(value)}`),
  ]);
  return [...server, ...hosts, ''].join('\n');
}
