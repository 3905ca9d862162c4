import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { describe, expect, test } from 'vitest';
import { staticPod } from '../../scripts/static-pod.ts';
import { loadConfig } from '../../src/config/load.ts';
import { chartCheck } from '../support/helm.ts';
import { repositoryRoot } from '../support/tools.ts';
import { nodePod, render, type Container, type KubeObject } from './render.ts';

const directory = join(repositoryRoot, 'packaging', 'static-pod');
const committed = readFileSync(join(directory, 'salvor.yaml'), 'utf8');

describe('the static pod', () => {
  const pod = parse(committed) as KubeObject;

  test('is what the chart comes to: node scripts/generate-static-pod.ts', () => {
    expect(committed).toBe(staticPod(render('minimal')));
  });

  test('needs nothing of an API server', () => {
    expect(committed).not.toMatch(/secretKeyRef|configMap|projected|serviceAccountName|secretName/);
    for (const volume of pod['spec'].volumes as KubeObject[]) {
      expect(['hostPath', 'emptyDir']).toContain(Object.keys(volume).find((key) => key !== 'name'));
    }
  });

  test('has the rights of the pod of the DaemonSet', () => {
    const { containers } = nodePod(render('minimal'));
    const own = [...pod['spec'].initContainers, ...pod['spec'].containers] as Container[];
    expect(own.map(({ securityContext }) => securityContext)).toEqual(
      containers.map(({ securityContext }) => securityContext),
    );
  });

  test('is a Pod to Kubernetes', () => {
    const { code, stderr, stdout } = chartCheck(committed);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).not.toContain('"error"');
    expect(stdout).toContain('"Pod":1');
  });

  test('comes with a configuration that the program takes, without an API server', async () => {
    const config = await loadConfig({ file: join(directory, 'config.yaml') });
    expect(config.agent.members.source).not.toBe('kubernetes');
    expect(config.agent.store.containerd.contentPath).not.toBe('');
    expect(config.registry.hostsFile).toBe('/run/salvor-hosts/hosts.json');
  });
});
