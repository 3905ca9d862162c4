import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { loadConfig } from '../../src/config/load.ts';
import type { Config } from '../../src/config/schema.ts';
import { chartCheck, chartDirectory, helm } from '../support/helm.ts';
import { nodePod, render, valuesFile, valueSets, valuesOf, type Container } from './render.ts';

/** The configuration as a container of the rendered pod would load it. */
async function configOf(set: string, container: Container, command: string): Promise<Config> {
  const name = set === 'own-hosts' ? 'mirror' : 'salvor';
  const text = render(set).one('ConfigMap', name)['data']['config.yaml'] as string;
  const address = '10.1.2.3';
  const env = Object.fromEntries(
    (container.env ?? [])
      .filter(({ name }) => name.startsWith('SALVOR_') && name !== 'SALVOR_CONFIG')
      .map(({ name, value = 'node-a' }) => [name, value.replace('$(NODE_ADDRESS)', address)]),
  );
  return await loadConfig({ command, file: 'config.yaml', content: { text }, env });
}

/** Whether Prometheus comes to the address of the node. */
function isScraped(set: string): boolean {
  const values = valuesOf(set) as Readonly<Record<string, { enabled?: boolean; listen?: string }>>;
  return (
    values['metrics']?.listen === 'node' ||
    values['podMonitor']?.enabled === true ||
    values['serviceMonitor']?.enabled === true
  );
}

test('there are at least eight value sets', () => {
  expect(valueSets.length).toBeGreaterThanOrEqual(8);
});

describe.each(valueSets)('the chart with %s', (set) => {
  const fullname = set === 'own-hosts' ? 'mirror' : 'salvor';

  test('passes helm lint --strict', () => {
    const { code, stderr, stdout } = helm(
      ...['lint', '--strict', chartDirectory, '--values', valuesFile(set)],
    );
    expect([code, stdout + stderr]).toEqual([0, expect.stringContaining('0 chart(s) failed')]);
  });

  test('renders objects that are valid for the types of the Kubernetes API', () => {
    const { code, stderr, stdout } = chartCheck(render(set).yaml);
    const lines = stdout.trim().split('\n');
    expect([code, stderr, lines.slice(0, -1)]).toEqual([0, '', []]);
    const { objects } = JSON.parse(lines.at(-1) ?? '{}') as { objects: Record<string, number> };
    expect(Object.values(objects).reduce((sum, count) => sum + count, 0)).toBe(
      render(set).objects.length,
    );
  });

  test('renders a configuration that registry and agent accept', async () => {
    const pod = nodePod(render(set), fullname);
    const registry = await configOf(set, pod.container('registry'), 'registry');
    const agent = await configOf(set, pod.container('agent'), 'agent');
    expect(registry.node.name).toBe('node-a');
    expect(registry.registry.listen).toMatch(/^127\.0\.0\.1:/);
    expect(agent.agent.listen).toMatch(set === 'k3s' ? '0.0.0.0:5090' : '10.1.2.3:7490');
    expect(agent.agent.members).toMatchObject({
      source: 'kubernetes',
      kubernetes: {
        namespace: set === 'own-hosts' ? 'nodes' : 'salvor-system',
        service: `${fullname}-agents`,
      },
    });
    const { socket, contentPath } = agent.agent.store.containerd;
    const mounts = pod.container('agent').volumeMounts ?? [];
    expect(mounts.map(({ mountPath }) => mountPath)).toContain(join(socket, '..'));
    expect(mounts.map(({ mountPath }) => mountPath)).toContain(contentPath);
  });

  test('lets every container find the admin port of the registry, and that of the agent', async () => {
    const { containers } = nodePod(render(set), fullname);
    const roles = ['registry', 'agent', 'hosts'];
    const found = await Promise.all(
      containers
        .filter(({ name }) => roles.includes(name))
        .map(async (each) => {
          const { agent, registry } = await configOf(set, each, each.name);
          return [registry.admin, agent.admin];
        }),
    );
    // What each process listens on itself, and what all others take it to be.
    expect(new Set(found.map((each) => each.join(' '))).size).toBe(1);
    expect(found[0]?.[0]).toMatch(isScraped(set) ? /^10\.1\.2\.3:/ : /^127\.0\.0\.1:/);
  });

  test('puts every object into one namespace, under labels that a selector finds', () => {
    const clusterWide = ['PriorityClass'];
    for (const { kind, metadata } of render(set).objects) {
      const expected = set === 'own-hosts' ? 'nodes' : 'salvor-system';
      const namespace = clusterWide.includes(kind) ? undefined : expected;
      expect(metadata.namespace, `${kind} ${metadata.name}`).toBe(namespace);
      expect(metadata.labels).toMatchObject({ 'app.kubernetes.io/instance': 'salvor' });
    }
  });

  test('asks for memory, and limits it, but never the processor', () => {
    for (const { kind, metadata, spec } of render(set).objects as readonly PodOwner[]) {
      const template = spec?.template ?? spec?.jobTemplate?.spec.template;
      for (const part of ['containers', 'initContainers'] as const) {
        for (const { name, resources } of template?.spec[part] ?? []) {
          const where = `${kind} ${metadata.name} ${name}`;
          expect(Object.keys(resources.requests), where).toEqual(['cpu', 'memory']);
          expect(Object.keys(resources.limits), where).toEqual(['memory']);
        }
      }
    }
  });
});

interface Template {
  readonly spec: Readonly<
    Record<
      'containers' | 'initContainers',
      | readonly {
          readonly name: string;
          readonly resources: Record<'requests' | 'limits', Record<string, string>>;
        }[]
      | undefined
    >
  >;
}

interface PodOwner {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec?: {
    readonly template?: Template;
    readonly jobTemplate?: { readonly spec: { readonly template: Template } };
  };
}

describe('chart-check', () => {
  test('chart-check reports an unknown field, a wrong type and a wrong expression', () => {
    const daemonSet = { apiVersion: 'apps/v1', kind: 'DaemonSet', metadata: { name: 'a' } };
    const documents = [
      { ...daemonSet, spec: { template: { spec: { hostNetwrok: true } } } },
      { ...daemonSet, spec: { minReadySeconds: 'soon' } },
    ];
    const yaml = documents.map((each) => JSON.stringify(each)).join('\n---\n');
    const { stdout } = chartCheck(yaml, ['rate(up[5m]']);
    const findings = stdout.trim().split('\n').slice(0, -1);
    expect(findings).toHaveLength(3);
    expect(findings[0]).toContain('unknown field');
    expect(findings[1]).toContain('minReadySeconds');
    expect(findings[2]).toContain('parse error');
  });
});

describe('the configuration in a ConfigMap', () => {
  const configIn = (set: string, ...settings: readonly string[]) =>
    parse(
      render(set, ...settings).one('ConfigMap', 'salvor')['data']['config.yaml'] as string,
    ) as Record<string, Record<string, unknown>>;

  const checksum = (...settings: readonly string[]): string =>
    nodePod(render('company-mirror', ...settings)).daemonSet['spec'].template.metadata.annotations[
      'checksum/config'
    ] as string;

  test('names the registries that an update waits for', () => {
    expect(configIn('minimal')['registry']?.['readyAfter']).toEqual(['ghcr.io']);
    expect(configIn('k3s')['registry']?.['readyAfter']).toEqual(['registry.example.com:5000']);
    const several = configIn('company-mirror')['registry']?.['readyAfter'];
    expect(several).toEqual(['ghcr.io', 'docker.io']);
    expect(configIn('cert-manager')['registry']).not.toHaveProperty('readyAfter');
    const image = ['--set', 'image.repository=team/salvor'];
    expect(configIn('minimal', ...image)['registry']?.['readyAfter']).toEqual(['docker.io']);
  });

  test('restarts pods for settings that only a restart changes, and for no other', () => {
    const before = checksum();
    const reloadable = [
      'config.log.level=warn',
      'config.registry.upstreams.quay\\.io.peers=prefer',
    ];
    for (const setting of reloadable) expect(checksum('--set', setting), setting).toBe(before);
    expect(checksum('--set', 'config.registry.limits.maxStreams=9')).not.toBe(before);
  });

  test('lets what is given win over what the chart fills in', () => {
    const set = '--set=config.agent.store.containerd.socket=/run/other/c.sock';
    const { container, volume } = nodePod(render('minimal', set));
    expect(volume('containerd-socket')?.['hostPath'].path).toBe('/run/other');
    expect(container('agent').volumeMounts).toContainEqual(
      expect.objectContaining({ mountPath: '/run/other' }),
    );
  });
});
