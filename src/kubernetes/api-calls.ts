/** A verb of the Kubernetes API, as RBAC rules name it. */
export type Verb = 'get' | 'list' | 'watch' | 'create' | 'update' | 'delete';

/** Resources that are asked for, by their plural names. */
export type ResourceName = 'daemonsets' | 'endpointslices' | 'pods' | 'secrets';

/** What a component asks of one kind of resource: the same as an RBAC rule that allows it. */
export interface ApiCalls {
  /** Empty for the core group. */
  readonly apiGroup: string;
  readonly resource: ResourceName;
  readonly verbs: readonly Verb[];
}

/** Parts of the program that talk to the API server, each under a service account of its own. */
export type ApiComponent = 'agent' | 'certificates' | 'uninstall';

/**
 * Everything that Salvor asks of an API server, all of it in one namespace. {@link KubeApi} makes
 * no call that is not in here, and a role that grants more than this grants too much.
 */
export const API_CALLS: Readonly<Record<ApiComponent, readonly ApiCalls[]>> = {
  /** `salvor agent` with agent.members.source: kubernetes. */
  agent: [{ apiGroup: 'discovery.k8s.io', resource: 'endpointslices', verbs: ['list', 'watch'] }],
  /** `salvor certs` over Secrets. */
  certificates: [{ apiGroup: '', resource: 'secrets', verbs: ['get', 'create', 'update'] }],
  /** `salvor uninstall await`. */
  uninstall: [
    { apiGroup: 'apps', resource: 'daemonsets', verbs: ['get'] },
    { apiGroup: '', resource: 'pods', verbs: ['list'] },
    { apiGroup: '', resource: 'secrets', verbs: ['delete'] },
  ],
};

/** Versions in which the resources are asked for. */
export const API_VERSIONS: Readonly<Record<ResourceName, string>> = {
  daemonsets: 'v1',
  endpointslices: 'v1',
  pods: 'v1',
  secrets: 'v1',
};
