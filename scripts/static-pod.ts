import { stringify } from 'yaml';
import { nodePod, type KubeObject, type Rendered } from '../test/chart/render.ts';

/** Where the node has what comes from the API server otherwise; by the chart's volumes. */
const directories: Readonly<Record<string, string>> = {
  config: '/etc/salvor/config',
  'registry-tls': '/etc/salvor/registry-tls',
  'agent-tls': '/etc/salvor/agent-tls',
};
const header = `# Salvor's pod for kubelets that start it without an API server: docs/cold-start.md.
# Written from the chart by scripts/generate-static-pod.ts.
`;

/**
 * The node pod of the chart as a static pod: what a kubelet would fetch from the API server is in
 * directories of the node instead, and nothing asks the API server.
 *
 * @returns YAML
 */
export function staticPod(rendered: Rendered): string {
  const { daemonSet, spec } = nodePod(rendered);
  const { annotations, labels } = daemonSet['spec'].template.metadata as KubeObject['metadata'];
  const volumes = (spec['volumes'] as KubeObject[])
    .filter(({ name }) => name !== 'api-token')
    .map((volume) => {
      const path = directories[volume['name'] as string];
      return path === undefined
        ? volume
        : { name: volume['name'] as string, hostPath: { path, type: 'Directory' } };
    });
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: 'salvor',
      namespace: daemonSet.metadata.namespace,
      labels,
      annotations: without(annotations ?? {}, ['checksum/config']),
    },
    spec: {
      ...without(spec, ['serviceAccountName', 'nodeSelector']),
      initContainers: withoutToken(spec['initContainers'] as KubeObject[]),
      containers: withoutToken(spec['containers'] as KubeObject[]),
      volumes,
    },
  };
  return header + stringify(pod, { aliasDuplicateObjects: false, lineWidth: 100 });
}

function without(record: object, keys: readonly string[]): object {
  return Object.fromEntries(Object.entries(record).filter(([key]) => !keys.includes(key)));
}

function withoutToken(containers: readonly KubeObject[]): object[] {
  return containers.map((container) => ({
    ...container,
    volumeMounts: (container['volumeMounts'] as { name: string }[]).filter(
      ({ name }) => name !== 'api-token',
    ),
  }));
}
