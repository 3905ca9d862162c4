import type { Container } from '../../chart/render.ts';

/** What a runtime is told of a container beside what the chart says. */
export interface RuntimeContainer {
  readonly container: Container;
  /** Of the pod. */
  readonly fsGroup: number;
  readonly rootDirectory: string;
  readonly namespacePath: string;
  readonly hostname: string;
  readonly cgroupsPath: string;
  /** Beside what the chart gives it. */
  readonly env: Readonly<Record<string, string>>;
  /** Where on this machine each volume is. */
  readonly volumes: ReadonlyMap<string, string>;
  /** Single files that every container is given, such as /etc/hosts, by their path in it. */
  readonly files: Readonly<Record<string, string>>;
  /** The value of a fieldRef. */
  readonly field: (path: string) => string;
}

/** Capabilities that containerd gives where nothing is said. */
const defaultCapabilities = [
  'AUDIT_WRITE',
  'CHOWN',
  'DAC_OVERRIDE',
  'FOWNER',
  'FSETID',
  'KILL',
  'MKNOD',
  'NET_BIND_SERVICE',
  'NET_RAW',
  'SETFCAP',
  'SETGID',
  'SETPCAP',
  'SETUID',
  'SYS_CHROOT',
];
const quantityUnits: Readonly<Record<string, number>> = { Mi: 1024 ** 2, Gi: 1024 ** 3 };

interface SecurityContext {
  readonly runAsUser: number;
  readonly runAsGroup: number;
  readonly runAsNonRoot: boolean;
  readonly readOnlyRootFilesystem: boolean;
  readonly allowPrivilegeEscalation: boolean;
  readonly capabilities: { readonly drop?: readonly string[]; readonly add?: readonly string[] };
}

/**
 * What the CRI plugin of containerd makes of a container of a pod on the host's network: the OCI
 * runtime specification of a bundle. Its seccomp profile is left out.
 *
 * @throws when a kubelet would refuse the container
 */
export function runtimeSpec(of: RuntimeContainer): object {
  const { container } = of;
  const security = container.securityContext as unknown as SecurityContext;
  if (security.runAsNonRoot && security.runAsUser === 0) {
    throw new Error(`Cannot run ${container.name}: runAsNonRoot, but the user is 0`);
  }
  const capabilities = capabilitiesOf(security);
  const isRoot = security.runAsUser === 0;
  const memory = quantity(container['resources'].limits.memory as string);
  return {
    ociVersion: '1.0.2',
    process: {
      user: {
        uid: security.runAsUser,
        gid: security.runAsGroup,
        additionalGids: [of.fsGroup],
      },
      args: [...(container['command'] as string[]), ...container.args],
      env: environment(of),
      cwd: '/',
      // The kernel gives root what is in the bounding set, and others nothing at exec.
      capabilities: {
        bounding: capabilities,
        effective: isRoot ? capabilities : [],
        permitted: isRoot ? capabilities : [],
        inheritable: [],
        ambient: [],
      },
      noNewPrivileges: !security.allowPrivilegeEscalation,
    },
    root: { path: of.rootDirectory, readonly: security.readOnlyRootFilesystem },
    hostname: of.hostname,
    mounts: [...systemMounts, ...fileMounts(of.files), ...volumeMounts(of)],
    linux: {
      cgroupsPath: of.cgroupsPath,
      resources: { devices: [{ allow: false, access: 'rwm' }], memory: { limit: memory } },
      namespaces: [
        { type: 'pid' },
        { type: 'ipc' },
        { type: 'uts' },
        { type: 'mount' },
        { type: 'network', path: of.namespacePath },
      ],
      maskedPaths: ['/proc/kcore', '/proc/keys', '/proc/timer_list', '/sys/firmware'],
      readonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
      rootfsPropagation: 'rslave',
    },
  };
}

function capabilitiesOf({ capabilities }: SecurityContext): string[] {
  const dropped = new Set(capabilities.drop ?? []);
  const kept = dropped.has('ALL') ? [] : defaultCapabilities.filter((each) => !dropped.has(each));
  return [...new Set([...kept, ...(capabilities.add ?? [])])].map((each) => `CAP_${each}`);
}

function environment(of: RuntimeContainer): string[] {
  const known: Record<string, string> = {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    ...of.env,
  };
  for (const each of of.container.env ?? []) {
    const path = (each as { valueFrom?: { fieldRef: { fieldPath: string } } }).valueFrom?.fieldRef
      .fieldPath;
    const text = path === undefined ? (each.value ?? '') : of.field(path);
    known[each.name] = text.replaceAll(
      /\$\((\w+)\)/g,
      (whole, name: string) => known[name] ?? whole,
    );
  }
  return Object.entries(known).map(([name, value]) => `${name}=${value}`);
}

function quantity(text: string): number {
  const [, number, unit] = /^(\d+)(Mi|Gi)$/.exec(text) ?? [];
  if (number === undefined || unit === undefined) throw new Error(`Cannot read ${text} as bytes`);
  return Number(number) * quantityUnits[unit]!;
}

const systemMounts = [
  { destination: '/proc', type: 'proc', source: 'proc' },
  {
    destination: '/dev',
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
  },
  { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: ['nosuid', 'size=65536k'] },
  { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'ro'] },
];

function fileMounts(files: Readonly<Record<string, string>>): object[] {
  return Object.entries(files).map(([destination, source]) => ({
    destination,
    source,
    type: 'bind',
    options: ['rbind', 'rprivate', 'ro'],
  }));
}

function volumeMounts({ container, volumes }: RuntimeContainer): object[] {
  return (container.volumeMounts ?? []).map((mount) => {
    const source = volumes.get(mount.name);
    if (source === undefined)
      throw new Error(`Cannot mount ${mount.name}: there is no such volume`);
    const { mountPropagation } = mount as { mountPropagation?: string };
    const propagation = mountPropagation === 'HostToContainer' ? 'rslave' : 'rprivate';
    const access = mount.readOnly === true ? 'ro' : 'rw';
    return {
      destination: mount.mountPath,
      source,
      type: 'bind',
      options: ['rbind', propagation, access],
    };
  });
}
