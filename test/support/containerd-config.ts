/** The paths of one daemon and what is special about it. */
export interface ContainerdConfig {
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
const disabledPlugins = [
  'io.containerd.snapshotter.v1.aufs',
  'io.containerd.snapshotter.v1.btrfs',
  'io.containerd.snapshotter.v1.devmapper',
  'io.containerd.snapshotter.v1.zfs',
  'io.containerd.internal.v1.restart',
  'io.containerd.internal.v1.tracing',
  'io.containerd.monitor.v1.cgroups',
  'io.containerd.tracing.processor.v1.otlp',
];

/** Renders the daemon's config.toml: CRI for pulls only, nothing shared with another daemon. */
export function renderContainerdConfig(config: ContainerdConfig): string {
  const { root, state } = config;
  return `version = 2
root = ${JSON.stringify(root)}
state = ${JSON.stringify(state)}
disabled_plugins = ${JSON.stringify(disabledPlugins)}

[grpc]
address = ${JSON.stringify(config.socket)}

[ttrpc]
address = ${JSON.stringify(config.ttrpcSocket)}

[debug]
format = "json"
level = "info"

[plugins."io.containerd.internal.v1.opt"]
path = ${JSON.stringify(`${root}/opt`)}

[plugins."io.containerd.grpc.v1.cri"]
stream_server_address = "127.0.0.1"
stream_server_port = "0"
disable_cgroup = true
disable_apparmor = true
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = ${JSON.stringify(config.cniDirectory)}
conf_dir = ${JSON.stringify(config.cniDirectory)}

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = ${JSON.stringify(config.snapshotter)}
discard_unpacked_layers = ${config.discardUnpackedLayers}

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = ${JSON.stringify(config.certsDirectory)}
`;
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
