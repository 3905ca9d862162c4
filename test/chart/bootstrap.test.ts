import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import { nodePod, render, valueSets, type KubeObject } from './render.ts';

let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'salvor-chart-bootstrap-'));
});

afterAll(() => rm(directory, { recursive: true }));

const secret = 'salvor-bootstrap-tls';
const roles = ['salvor-certs', 'salvor-certs-renewal', 'salvor-uninstall'];

function argumentsOf(job: KubeObject): readonly string[] {
  return job['spec'].template.spec.containers[0].args as string[];
}

/** Secrets that a role may do something with, by name. */
function secretsOf(set: string, role: string): readonly string[] {
  const rules = render(set).one('Role', role)['rules'] as {
    resources: string[];
    resourceNames?: string[];
  }[];
  return rules
    .filter(({ resources }) => resources.includes('secrets'))
    .flatMap(({ resourceNames }) => resourceNames ?? []);
}

describe('the listener for nodes without Salvor', () => {
  test('is off unless it is enabled', () => {
    for (const set of valueSets.filter((each) => each !== 'bootstrap')) {
      const { yaml } = render(set);
      expect(yaml).not.toContain('BOOTSTRAP');
      expect(yaml).not.toContain('--bootstrap-secret');
      expect(yaml).not.toContain('bootstrap.salvor.internal');
      for (const role of roles) {
        const found = render(set).objects.filter(
          ({ kind, metadata }) => kind === 'Role' && metadata.name === role,
        );
        if (found.length > 0) expect(secretsOf(set, role)).not.toContain(secret);
      }
    }
  });

  test('is on the address of the node, for the image of the chart and what else is named', async () => {
    const agent = nodePod(render('bootstrap')).container('agent');
    const ports = (agent as unknown as { ports: { name: string; containerPort: number }[] }).ports;
    expect(ports).toContainEqual({ name: 'bootstrap', containerPort: 8492, protocol: 'TCP' });
    const file = join(directory, 'config.yaml');
    const map = render('bootstrap').one('ConfigMap', 'salvor');
    await writeFile(file, map['data']['config.yaml'] as string);
    const env = Object.fromEntries(
      (agent.env ?? [])
        .filter(({ name }) => name.startsWith('SALVOR_') && name !== 'SALVOR_CONFIG')
        .map(({ name, value = 'node-a' }) => [name, value.replace('$(NODE_ADDRESS)', 'fd00::7')]),
    );
    const config = await loadConfig({ command: 'agent', file, env });
    expect(config.agent.bootstrap).toMatchObject({
      listen: '[fd00::7]:8492',
      repositories: ['docker.io/library/salvor', 'registry.k8s.io/pause'],
    });
    const own = render('minimal', '--set', 'bootstrap.enabled=true').one('ConfigMap', 'salvor');
    expect(own['data']['config.yaml']).toContain('- ghcr.io/salvor/salvor');
  });

  test('has a certificate issued that no pod mounts, and no more rights than that takes', () => {
    const issue = argumentsOf(render('bootstrap').one('Job', 'salvor-certs'));
    expect(issue).toContain(`--bootstrap-secret=${secret}`);
    expect(issue.filter((each) => each.startsWith('--address='))).toEqual([
      '--address=10.0.0.1',
      '--address=fd00::1',
      '--address=node-c.example.com',
    ]);
    for (const role of roles) expect(secretsOf('bootstrap', role)).toContain(secret);
    expect(argumentsOf(render('bootstrap').one('Job', 'salvor-uninstall'))).toContain(
      `--secret=${secret}`,
    );
    const pods = render('bootstrap').objects.filter(({ kind }) => kind === 'DaemonSet');
    expect(JSON.stringify(pods)).not.toContain(secret);
  });

  test('does not keep the authority from being replaced once it is off again', () => {
    const issue = argumentsOf(render('minimal').one('Job', 'salvor-certs'));
    expect(issue).toContain(`--forget=Secret ${secret}`);
    const enabled = argumentsOf(render('bootstrap').one('Job', 'salvor-certs'));
    expect(enabled.join()).not.toContain('--forget');
  });

  test('takes a certificate of cert-manager with the addresses of agents, and one for clients alone', () => {
    const { one } = render(
      ...(['cert-manager', '--set', 'bootstrap.enabled=true', '--set'] as const),
      'bootstrap.addresses={10.0.0.1,fd00::1,*.nodes.test}',
    );
    expect(one('Certificate', 'salvor-agent')['spec']).toMatchObject({
      dnsNames: ['agent.salvor.internal', '*.nodes.test'],
      ipAddresses: ['10.0.0.1', 'fd00::1'],
    });
    const registry = one('Certificate', 'salvor-registry')['spec'] as object;
    expect(registry).toMatchObject({ dnsNames: ['registry.salvor.internal'] });
    expect(registry).not.toHaveProperty('ipAddresses');
    expect(one('Certificate', 'salvor-bootstrap')['spec']).toMatchObject({
      secretName: secret,
      dnsNames: ['bootstrap.salvor.internal'],
      usages: ['digital signature', 'client auth'],
    });
  });
});
