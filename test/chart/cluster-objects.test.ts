import { describe, expect, test } from 'vitest';
import { PORT_NAME } from '../../src/discovery/endpoint-slices.ts';
import { API_CALLS, type ApiComponent } from '../../src/kubernetes/api-calls.ts';
import { nodePod, render, valueSets, type KubeObject } from './render.ts';

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
}

function rulesOf(set: string, role: string): readonly Rule[] {
  return render(set).one('Role', role)['rules'] as readonly Rule[];
}

function hookOf({ metadata }: KubeObject): string | undefined {
  return metadata.annotations?.['helm.sh/hook'];
}

/** What rules allow, one word a verb: "list discovery.k8s.io/endpointslices". */
function granted(rules: readonly Rule[]): string[] {
  const words = rules.flatMap(({ apiGroups, resources, verbs }) =>
    apiGroups.flatMap((group) =>
      resources.flatMap((resource) => verbs.map((verb) => `${verb} ${group}/${resource}`)),
    ),
  );
  return words.toSorted();
}

/** The same of what the program calls. */
function called(component: ApiComponent): string[] {
  return API_CALLS[component]
    .flatMap(({ apiGroup, resource, verbs }) =>
      verbs.map((verb) => `${verb} ${apiGroup}/${resource}`),
    )
    .toSorted();
}

describe('rights', () => {
  test.each([
    ['salvor', 'agent'],
    ['salvor-certs', 'certificates'],
    ['salvor-certs-renewal', 'certificates'],
    ['salvor-uninstall', 'uninstall'],
  ] as const)(
    'of the role %s are exactly what its part of the program calls',
    (role, component) => {
      expect(granted(rulesOf('minimal', role))).toEqual(called(component));
    },
  );

  test('over objects whose names are known are for these alone', () => {
    const secrets = ['salvor-agent-tls', 'salvor-registry-tls', 'salvor-ca'];
    const named = (role: string) =>
      rulesOf('minimal', role).map(({ resourceNames, verbs }) => [verbs.join(' '), resourceNames]);
    expect(named('salvor-certs')).toEqual([
      ['get update', secrets],
      // No rule can name what is not there yet.
      ['create', undefined],
    ]);
    expect(named('salvor-uninstall')).toEqual([
      ['get', ['salvor-uninstall']],
      ['list', undefined],
      ['delete', secrets],
    ]);
    expect(rulesOf('cert-manager', 'salvor-uninstall')).toHaveLength(2);
  });

  test.each(valueSets)('with %s are never cluster-wide, and no token is mounted unasked', (set) => {
    const { objects } = render(set);
    expect(objects.filter(({ kind }) => kind.startsWith('Cluster'))).toEqual([]);
    for (const account of objects.filter(({ kind }) => kind === 'ServiceAccount')) {
      expect(account['automountServiceAccountToken'], account.metadata.name).toBe(false);
    }
  });

  test('are bound to accounts that are there, by roles that are there', () => {
    const { objects, one } = render('minimal');
    for (const binding of objects.filter(({ kind }) => kind === 'RoleBinding')) {
      const role = one('Role', binding['roleRef'].name as string);
      const account = one('ServiceAccount', binding['subjects'][0].name as string);
      // What a hook needs must be there as long as the hook.
      expect([hookOf(role), hookOf(account)]).toEqual([hookOf(binding), hookOf(binding)]);
    }
  });

  test('are nobody’s where rbac.create is false', () => {
    const { objects } = render('existing-secrets');
    const names = objects
      .filter(({ kind }) => kind === 'Role')
      .map(({ metadata }) => metadata.name);
    expect(names).toEqual(['salvor-uninstall']);
  });
});

describe('the Service of the agents', () => {
  test('lists every agent, ready or not', () => {
    expect(render('minimal').one('Service', 'salvor-agents')['spec']).toMatchObject({
      clusterIP: 'None',
      publishNotReadyAddresses: true,
      ports: [{ port: 7490 }],
    });
    expect(render('k3s').one('Service', 'salvor-agents')['spec'].ports[0].port).toBe(5090);
  });

  test('calls the port as agents look for it, and leads to the one that the pod has', () => {
    const { ports } = render('minimal').one('Service', 'salvor-agents')['spec'] as {
      ports: { name: string; targetPort: string }[];
    };
    expect(ports.map(({ name }) => name)).toEqual([PORT_NAME]);
    const { container } = nodePod(render('minimal'));
    const ofPod = container('agent')['ports'] as { name: string }[];
    expect(ofPod.map(({ name }) => name)).toContain(ports[0]?.targetPort);
  });
});

describe('certificates', () => {
  test('are issued before anything is installed or upgraded, and renewed every day', () => {
    const { one } = render('minimal');
    expect(hookOf(one('Job', 'salvor-certs'))).toBe('pre-install,pre-upgrade');
    const renewal = one('CronJob', 'salvor-certs-renewal')['spec'];
    const command = (job: KubeObject): unknown => job['template'].spec.containers[0].args;
    expect(command(renewal.jobTemplate.spec as KubeObject)).toEqual(
      command(one('Job', 'salvor-certs')['spec'] as KubeObject),
    );
  });

  test('are never part of what is rendered', () => {
    for (const set of valueSets) {
      expect(render(set).yaml).not.toMatch(/BEGIN|kind: Secret\b/);
      expect(render(set, '--is-upgrade').yaml).toBe(render(set).yaml);
    }
  });

  test('come from cert-manager into the same Secrets, one for each role', () => {
    const { objects, one } = render('cert-manager');
    for (const role of ['agent', 'registry']) {
      expect(one('Certificate', `salvor-${role}`)['spec']).toMatchObject({
        secretName: `salvor-${role}-tls`,
        dnsNames: [`${role}.salvor.internal`],
        usages: ['digital signature', 'server auth', 'client auth'],
        issuerRef: { name: 'salvor-ca', kind: 'ClusterIssuer' },
      });
    }
    expect(objects.filter(({ metadata }) => metadata.name.startsWith('salvor-certs'))).toEqual([]);
  });

  test('of your own are mounted, and nothing is issued', () => {
    const { objects, yaml } = render('existing-secrets');
    expect(yaml).toContain('secretName: nodes-agent');
    expect(yaml).toContain('secretName: nodes-registry');
    expect(objects.filter(({ kind }) => ['Certificate', 'CronJob'].includes(kind))).toEqual([]);
  });
});

describe('removal', () => {
  const order = ['ServiceAccount', 'Role', 'RoleBinding', 'DaemonSet', 'Job'];

  test('happens after the release is gone, in an order that works, and leaves nothing', () => {
    const hooks = render('minimal').objects.filter((each) => hookOf(each) === 'post-delete');
    const weight = ({ metadata }: KubeObject): number =>
      Number(metadata.annotations?.['helm.sh/hook-weight']);
    const sorted = hooks.toSorted((a, b) => weight(a) - weight(b)).map(({ kind }) => kind);
    expect(sorted).toEqual(order);
    for (const { metadata } of hooks) {
      expect(metadata.annotations?.['helm.sh/hook-delete-policy']).toBe(
        'before-hook-creation,hook-succeeded',
      );
    }
  });

  test('restores every node that was wired, before the pod counts as running', () => {
    const { spec } = render('talos').one('DaemonSet', 'salvor-uninstall')['spec'].template;
    const node = render('talos').one('DaemonSet', 'salvor')['spec'].template.spec;
    for (const key of ['nodeSelector', 'tolerations', 'affinity', 'priorityClassName']) {
      expect(spec[key], key).toEqual(node[key]);
    }
    const init = spec.initContainers as { name: string; args: string[] }[];
    expect(init.map(({ name }) => name)).toEqual(['hosts', 'unkeep', 'state']);
    expect(init.map(({ args }) => args.slice(0, 2).join(' '))).toEqual([
      'hosts restore',
      'node unkeep',
      'uninstall state',
    ]);
    expect(spec.containers).toHaveLength(1);
  });

  test('is for pods that no selector of the release finds', () => {
    const { one } = render('minimal');
    const labels = one('DaemonSet', 'salvor-uninstall')['spec'].template.metadata.labels as Record<
      string,
      string
    >;
    const selectors = [
      one('DaemonSet', 'salvor')['spec'].selector.matchLabels,
      one('Service', 'salvor-agents')['spec'].selector,
    ] as Record<string, string>[];
    for (const selector of selectors) {
      expect(Object.entries(selector).every(([key, value]) => labels[key] === value)).toBe(false);
    }
  });
});
