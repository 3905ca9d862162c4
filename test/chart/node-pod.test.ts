import { describe, expect, test } from 'vitest';
import { nodePod, render, valueSets, type Container, type KubeObject } from './render.ts';

const locked = {
  allowPrivilegeEscalation: false,
  privileged: false,
  readOnlyRootFilesystem: true,
  seccompProfile: { type: 'RuntimeDefault' },
};

function mountsOf(container: Container): readonly string[] {
  return (container.volumeMounts ?? []).map(({ name }) => name);
}

function volumesOf(spec: KubeObject): ReadonlyMap<string, KubeObject> {
  return new Map((spec['volumes'] as KubeObject[]).map((each) => [each['name'] as string, each]));
}

const sets = valueSets.map((set) => [set, set === 'own-hosts' ? 'mirror' : 'salvor'] as const);

describe.each(sets)('the node pod with %s', (set, name) => {
  const { spec, container, containers } = nodePod(render(set), name);
  const volumes = volumesOf(spec);

  test('gives no container a writable root or a way to more, nor capabilities but to hosts', () => {
    for (const each of containers) {
      expect(each.securityContext, each.name).toMatchObject(locked);
      expect(each.securityContext['capabilities'], each.name).toEqual({
        drop: ['ALL'],
        // Files are put back with their owners.
        ...(each.name === 'hosts' ? { add: ['CHOWN', 'DAC_OVERRIDE', 'FOWNER'] } : {}),
      });
    }
    expect(spec).not.toHaveProperty('hostPID');
    expect(spec).not.toHaveProperty('shareProcessNamespace');
  });

  test('runs the registry as an ordinary user without anything of the node', () => {
    const registry = container('registry');
    expect(registry.securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 65532 });
    for (const mount of mountsOf(registry)) {
      expect(volumes.get(mount), mount).not.toHaveProperty('hostPath');
      expect(volumes.get(mount), mount).not.toHaveProperty('projected');
    }
    const writable = (registry.volumeMounts ?? []).filter(({ readOnly }) => readOnly !== true);
    expect(writable.map(({ name: mount }) => mount)).toEqual(['socket']);
  });

  test('gives the agent its state to write, and containerd to read', () => {
    const agent = container('agent');
    const writable = (agent.volumeMounts ?? []).filter(({ readOnly }) => readOnly !== true);
    expect(writable.map(({ name: mount }) => mount).sort()).toEqual(['socket', 'state']);
    const socket = volumes.get('containerd-socket');
    expect(socket?.['hostPath']).toMatchObject({ type: 'Directory' });
    expect(socket?.['hostPath'].path).not.toMatch(/\.sock$/);
  });

  test('lets hosts write what it wires, its record and what the registry reads of it', () => {
    if (set === 'own-hosts') return;
    const writable = (container('hosts').volumeMounts ?? []).filter((each) => !each.readOnly);
    expect(writable.map(({ name: mount }) => mount)).toEqual(['certs-d', 'state', 'upstreams']);
  });

  test('tells each container from which image it is, as salvor doctor asks for that', () => {
    for (const each of containers) {
      const { value } = each.env!.find(({ name: wanted }) => wanted === 'SALVOR_NODE_IMAGE')!;
      expect(value, each.name).toBe(each['image']);
    }
  });

  test('gives the token of the API server to the agent alone', () => {
    expect(spec['automountServiceAccountToken']).toBe(false);
    const holders = containers.filter((each) => mountsOf(each).includes('api-token'));
    expect(holders.map((each) => each.name)).toEqual(['agent']);
  });

  test('gives each role its own certificate', () => {
    const secretOf = (of: Container) =>
      mountsOf(of)
        .map((mount) => volumes.get(mount)?.['secret']?.secretName as string | undefined)
        .filter((secret) => secret !== undefined);
    const [agent, registry] = [secretOf(container('agent')), secretOf(container('registry'))];
    expect([agent.length, registry.length]).toEqual([1, 1]);
    expect(agent).not.toEqual(registry);
  });

  test('is on the network of the node, and resolves names as the node does', () => {
    expect(spec).toMatchObject({ hostNetwork: true, dnsPolicy: 'Default' });
    // Variables of Services would look like settings.
    expect(spec['enableServiceLinks']).toBe(false);
  });

  test('mounts only volumes that it has, and has none that nobody mounts', () => {
    const mounted = new Set(containers.flatMap(mountsOf));
    expect([...mounted].sort()).toEqual([...volumes.keys()].sort());
  });
});

describe('the order of the node pod', () => {
  test('starts the registry as a sidecar, then has hosts written, then starts the agent', () => {
    const { spec } = nodePod(render('minimal'));
    const init = spec['initContainers'] as Container[];
    expect(init.map(({ name, restartPolicy }) => [name, restartPolicy])).toEqual([
      ['registry', 'Always'],
      ['hosts', undefined],
    ]);
    expect((spec['containers'] as Container[]).map(({ name }) => name)).toEqual(['agent']);
  });

  test('changes nothing on the node where hosts.enabled is false', () => {
    const { containers, volume } = nodePod(render('own-hosts'), 'mirror');
    expect(containers.map(({ name }) => name)).toEqual(['registry', 'agent']);
    expect(volume('certs-d')).toBeUndefined();
  });

  test('gives streams as long to end as both processes take', () => {
    expect(nodePod(render('minimal')).spec['terminationGracePeriodSeconds']).toBe(60);
  });

  test.each(['registry', 'agent'])(
    'ends the %s when it is silent, and does not wait then',
    (name) => {
      const probe = nodePod(render('minimal')).container(name)['livenessProbe'] as Record<
        'periodSeconds' | 'timeoutSeconds' | 'failureThreshold' | 'terminationGracePeriodSeconds',
        number
      >;
      const { periodSeconds, timeoutSeconds, failureThreshold } = probe;
      // Nothing of it is an answer while the process stands still; the pod's 60 s are for pulls.
      expect(probe.terminationGracePeriodSeconds).toBe(1);
      // The kubelet asks next within a period, and every ask takes its time-out.
      const worstSeconds =
        periodSeconds + failureThreshold * Math.max(periodSeconds, timeoutSeconds);
      expect(worstSeconds).toBeLessThanOrEqual(10);
      // A process that is late by what its own watchdog allows, 5 s, is not ended.
      expect(failureThreshold * timeoutSeconds).toBeGreaterThan(5);
    },
  );

  test('replaces one pod at a time, and never has two on a node', () => {
    const { daemonSet } = nodePod(render('minimal'));
    expect(daemonSet['spec'].updateStrategy).toEqual({
      type: 'RollingUpdate',
      rollingUpdate: { maxUnavailable: 1, maxSurge: 0 },
    });
    expect(daemonSet['spec'].minReadySeconds).toBe(10);
  });
});

describe('admin ports', () => {
  const probesOf = ({ livenessProbe, readinessProbe, startupProbe }: Container) =>
    [startupProbe, livenessProbe, readinessProbe].map(
      ({ httpGet }: { httpGet: { host?: string; port: number; path: string } }) => httpGet,
    );

  test('are on loopback, where the kubelet of the node can ask them', () => {
    const { container } = nodePod(render('minimal'));
    expect(probesOf(container('registry')).map(({ host, path }) => [host, path])).toEqual([
      ['127.0.0.1', '/healthz'],
      ['127.0.0.1', '/healthz'],
      ['127.0.0.1', '/readyz'],
    ]);
    const names = (container('registry').env ?? []).map(({ name }) => name);
    expect(names).not.toContain('SALVOR_REGISTRY_ADMIN');
  });

  test.each(['monitoring', 'service-monitor', 'k3s'])('are on the node with %s', (set) => {
    const { container } = nodePod(render(set));
    for (const [role, port] of set === 'k3s' ? ports(5081, 5091) : ports(7481, 7491)) {
      const variable = `SALVOR_${role.toUpperCase()}_ADMIN`;
      const env = container(role).env ?? [];
      expect(env.find(({ name }) => name === variable)?.value).toBe(`[$(NODE_ADDRESS)]:${port}`);
      expect(probesOf(container(role)).map(({ host }) => host)).toEqual(Array(3).fill(undefined));
      expect(probesOf(container(role)).map((probe) => probe.port)).toEqual(Array(3).fill(port));
    }
  });
});

function ports(registry: number, agent: number): readonly (readonly [string, number])[] {
  return [
    ['registry', registry],
    ['agent', agent],
  ];
}

describe('places of a distribution', () => {
  test.each([
    ['minimal', '/run/containerd', '/etc/containerd/certs.d'],
    ['k3s', '/run/k3s/containerd', '/var/lib/rancher/k3s/agent/etc/containerd/certs.d'],
    ['talos', '/run/containerd', '/etc/cri/conf.d/hosts'],
  ])('with %s are those of its containerd', (set, socket, certs) => {
    const { volume, container } = nodePod(render(set));
    expect(volume('containerd-socket')?.['hostPath'].path).toBe(socket);
    expect(volume('certs-d')?.['hostPath'].path).toBe(certs);
    expect(container('hosts').args.join(' ')).toContain(certs);
  });

  test('are mounted at the same path, so that what containerd says of them is true', () => {
    const { container, volume } = nodePod(render('k3s'));
    for (const { mountPath, name } of container('agent').volumeMounts ?? []) {
      const path = volume(name)?.['hostPath']?.path as string | undefined;
      if (path !== undefined) expect(mountPath).toBe(path);
    }
  });

  test('let containerd end its mounts while the agent runs', () => {
    const mounts = nodePod(render('minimal')).container('agent').volumeMounts ?? [];
    expect(mounts.find(({ name }) => name === 'containerd-socket')).toMatchObject({
      mountPropagation: 'HostToContainer',
      readOnly: true,
    });
  });
});
