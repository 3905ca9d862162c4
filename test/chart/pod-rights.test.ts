import { chmod, chown, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { startCluster, type ClusterNode } from '../support/cluster.ts';
import { startDockerRegistry } from '../support/docker-registry.ts';
import { buildImage } from '../support/image.ts';
import { sourceProgram } from '../support/program-path.ts';
import { pushImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';
import { nodePod, render, type Container } from './render.ts';

const scope = suiteScope('pod-rights');

/** Runs what follows with the user and the capabilities of a container, as setpriv takes them. */
function setprivOf({ securityContext }: Container, { mayRead }: { mayRead: boolean }): string {
  const { capabilities, runAsUser, runAsGroup } = securityContext as {
    capabilities: { add?: readonly string[] };
    runAsUser: number;
    runAsGroup: number;
  };
  const kept = (capabilities.add ?? []).map((name) => name.toLowerCase());
  // The kubelet would give the container files that it can read; a clone of this repository may
  // lie in a directory that is root's alone.
  const wanted = [...kept, ...(mayRead ? ['dac_read_search'] : [])].map((name) => `,+${name}`);
  const sets = ['--inh-caps', '--ambient-caps', '--bounding-set'];
  return [
    'setpriv --pdeathsig KILL --no-new-privs --clear-groups',
    `--reuid ${runAsUser} --regid ${runAsGroup}`,
    ...sets.map((set) => `${set}=-all${wanted.join('')}`),
  ].join(' ');
}

/** What the kernel says of a process. */
async function rightsOf(pid: number): Promise<{ uid: string; capabilities: bigint }> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): string => new RegExp(`^${name}:\\s*(\\w+)`, 'm').exec(status)![1]!;
  return { uid: field('Uid'), capabilities: BigInt(`0x${field('CapEff')}`) };
}

const CAP_DAC_READ_SEARCH = 2n;

test('agent and registry do their work with the users and capabilities of the chart', async () => {
  const { container, spec } = nodePod(render('minimal'));
  const group = spec['securityContext'].fsGroup as number;
  // As the kubelet makes an emptyDir for a pod with an fsGroup.
  await chown(scope().socketDirectory, 0, group);
  await chmod(scope().socketDirectory, 0o2770);
  const command = join(scope().directory, 'as-in-the-pod');
  const node = `'${sourceProgram.command}' "$@"`;
  const script = [
    '#!/bin/sh',
    'case " $* " in',
    `*" registry "*) exec ${setprivOf(container('registry'), { mayRead: true })} ${node} ;;`,
    `*" agent "*) exec ${setprivOf(container('agent'), { mayRead: false })} ${node} ;;`,
    'esac',
    'exit 2',
    '',
  ];
  await writeFile(command, script.join('\n'), { mode: 0o755 });
  const upstream = await startDockerRegistry(scope(), { name: 'upstream' });
  const built = await buildImage({
    directory: scope().directory,
    layers: [{ randomBytes: 400_000 }, { randomBytes: 3_000_000, seed: 'b' }],
  });
  const image = await pushImage({ baseUrl: upstream.url, repository: 'app', tag: 'v1' }, built);
  const cluster = await startCluster(scope(), {
    nodes: ['a', 'b'],
    upstreams: { [upstream.host]: { url: upstream.url } },
    program: { ...sourceProgram, command },
  });
  const [a, b] = cluster.nodes as [ClusterNode, ClusterNode];
  expect(await rightsOf(a.agent.pid)).toEqual({ uid: '0', capabilities: 0n });
  const registry = await rightsOf(a.registry.pid);
  expect(registry).toEqual({ uid: '65532', capabilities: 1n << CAP_DAC_READ_SEARCH });

  const reference = `${upstream.host}/app:v1`;
  await a.containerd.pull(reference);
  await upstream.kill('SIGKILL');
  await b.containerd.pull(reference);
  for (const { digest } of image.blobs) await b.containerd.verifyBlob(digest);
  const sources = b.requests().filter(({ url, method }) => method === 'GET' && /blobs/.test(url));
  expect(sources.map(({ source }) => source)).toEqual(image.blobs.map(() => 'node/a'));
}, 120_000);
