/** error: pulls do not survive an outage here; warning: they may not; info: worth knowing. */
export type Severity = 'error' | 'warning' | 'info';

/** Something that is wrong with a node, or with the nodes together. */
export interface Finding {
  /** Stable, one of {@link catalogue}. */
  readonly id: FindingId;
  readonly severity: Severity;
  /** What was found, with its value. */
  readonly found: string;
  readonly why: string;
  /** A command, or a line of a file. */
  readonly fix: string;
}

/** Every kind of finding: how bad it is, and why. docs/doctor.md says the same with more words. */
export const catalogue = {
  'containerd-unreachable': ['error', 'without containerd there is nothing to pull with'],
  'containerd-too-old': ['error', 'containerd before 1.6 is not supported'],
  'containerd-end-of-life': ['info', 'its project mends it no more; a distribution may'],
  'containerd-config-broken': ['error', 'containerd does not start with it, or ignores parts'],
  'config-path-unset': ['error', 'containerd reads no hosts.toml and never asks Salvor'],
  'two-roots': [
    'error',
    'the transfer service takes both for one directory and finds no hosts.toml',
  ],
  'legacy-mirrors': ['error', 'they take the place of config_path, so that hosts.toml is not read'],
  'ignored-table': ['warning', 'this release passes over it, so its settings are not in effect'],
  'layers-discarded': ['error', 'the node has no layers to give to others'],
  'lazy-snapshotter': ['warning', 'its images have no layers in the store to give to others'],
  'hosts-unreadable': ['error', 'containerd cannot read it either'],
  'hosts-default-missing': ['error', 'registries without a directory of their own bypass Salvor'],
  'hosts-shadowed': ['error', 'a directory hides _default, so this registry bypasses Salvor'],
  'hosts-without-salvor': ['warning', 'this registry bypasses Salvor'],
  'hosts-broken': ['error', 'containerd ignores the whole file'],
  'hosts-unknown-capability': ['error', 'this release of containerd ignores the whole file'],
  'hosts-no-resolve': ['error', 'tags are not asked of Salvor, so pulls by tag fail in an outage'],
  'hosts-wrong-port': ['error', 'containerd asks a port where Salvor is not'],
  'hosts-default-server': [
    'error',
    'it sends what Salvor cannot give to one server, whatever its registry',
  ],
  'hosts-tls-on-http': ['warning', 'containerd tries https first at a mirror that speaks http'],
  'hosts-not-first': ['warning', 'a host before Salvor is waited for in an outage, every time'],
  'hosts-passed-over': ['info', 'containerd never reads it'],
  'mirror-not-asked': ['error', 'a pull through the runtime went past Salvor'],
  'registry-unreachable': ['error', 'every pull goes to its registry directly'],
  'registry-foreign': ['error', 'containerd is sent to a program that is not Salvor'],
  'registry-admin-unreachable': [
    'warning',
    'nobody can tell which pulls went through the registry, nor what it knows of its upstreams',
  ],
  'agent-unreachable': ['error', 'no other node can be asked, and none gets anything from here'],
  'policies-off': ['warning', 'nodes answer for no image at all'],
  'members-empty': ['warning', 'no other node can stand in for a registry'],
  'members-without-self': ['warning', 'other nodes may not know of this one either'],
  'members-stale': ['warning', 'nodes that came or went since are not known'],
  'members-source-fails': ['warning', 'nodes that come or go are not noticed'],
  'member-unreachable': ['error', 'this node gets nothing from there in an outage'],
  'member-cannot-reach-back': ['error', 'that node gets nothing from here in an outage'],
  'member-does-not-know': ['warning', 'that node does not ask this one in an outage'],
  'members-one-way': ['info', 'that agent is too old to say whether it reaches this node'],
  'members-cut-off': ['error', 'the one gets nothing from the other in an outage'],
  'identity-unusable': ['error', 'other nodes refuse this one'],
  'identity-role-missing': [
    'info',
    'it is of no use to a process of that role, which may have its own',
  ],
  'identity-expires': ['warning', 'after that other nodes refuse this one'],
  'clock-skewed': ['warning', 'certificates and the age of tags are judged by the clock'],
  'disk-nearly-full': ['warning', 'kubelet removes images, which other nodes may need'],
  'disk-full': ['error', 'pulls fail, and kubelet evicts Pods'],
  'state-directory': ['error', 'what registries confirmed is lost at a restart'],
  'upstream-outage': ['warning', 'its images come from nodes, or not at all'],
  'upstream-unreachable': ['error', 'Salvor cannot get its images, although containerd may'],
  'proxy-catches-mirror': ['error', 'containerd asks the proxy for Salvor'],
  'own-image-missing': ['warning', 'the Pod of Salvor cannot start again in an outage'],
  'node-left-out': ['info', 'pulls on this node go past Salvor, as they are meant to'],
  'pulls-unknown': ['warning', 'these images may not survive an outage of their registry'],
  'pulls-bypassed': ['warning', 'these images do not survive an outage of their registry'],
} as const satisfies Readonly<Record<string, readonly [Severity, string]>>;

export type FindingId = keyof typeof catalogue;

/** A finding with what the catalogue says of its kind. */
export function finding(id: FindingId, found: string, fix: string): Finding {
  const [severity, why] = catalogue[id];
  return { id, severity, found, why, fix };
}
