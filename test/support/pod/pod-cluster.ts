import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buildRootFilesystem } from '../../../scripts/root-filesystem.ts';
import { createAuthority, issueIdentity } from '../../../src/rpc/certificates.ts';
import { ROLES } from '../../../src/rpc/identity-roles.ts';
import { render } from '../../chart/render.ts';
import { startDockerRegistry, type DockerRegistry } from '../docker-registry.ts';
import { Program } from '../process.ts';
import { buildProgram } from '../program-path.ts';
import { issueServerCertificate } from '../server-certificate.ts';
import type { TestScope } from '../test-scope.ts';
import { NodeNetwork, waitForListener, type NetworkHost } from './node-network.ts';
import { PodNode } from './pod-node.ts';

const upstreamPort = 5000;
const apiPort = 6443;
const agentPort = 7490;
const token = 'token of the service account';
const namespace = 'salvor-system';

/** How a cluster is set up. */
export interface PodClusterOptions {
  readonly nodes: readonly string[];
  /** Fills the upstream before the nodes see it, over loopback. */
  readonly fill: (url: string) => Promise<void>;
  /** What is special about the upstream, as in the configuration. */
  readonly upstream?: object;
}

/** Nodes with the chart's pod, an upstream and an API server: each on a machine of its own. */
export interface PodCluster {
  readonly network: NodeNetwork;
  readonly nodes: readonly PodNode[];
  readonly upstream: DockerRegistry;
  readonly upstreamHost: NetworkHost;
  readonly api: Program;
  /** Another node, whose pod is not started. */
  readonly add: (name: string) => Promise<PodNode>;
}

/** Starts the cluster, all pods included. Needs root. */
export async function startPodCluster(
  scope: TestScope,
  options: PodClusterOptions,
): Promise<PodCluster> {
  const network = await NodeNetwork.create(scope);
  const upstreamHost = await network.add('upstream-host');
  const apiHost = await network.add('api-host');
  const hosts: NetworkHost[] = [];
  for (const name of options.nodes) hosts.push(await network.add(name));
  const upstream = await startUpstream(scope, { host: upstreamHost, fill: options.fill });
  const { api, apiToken } = await startApi(scope, { apiHost, hosts });

  const program = await buildProgram();
  const rootDirectory = join(scope.directory, 'rootfs');
  buildRootFilesystem({ directory: rootDirectory, program: join(program.main, '..') });
  const secrets: Record<string, string> = {};
  const authority = await createAuthority();
  for (const role of ROLES) {
    const directory = join(scope.directory, `${role}-identity`);
    const { ca, certificate, key } = await issueIdentity(authority, [role]);
    await mkdir(directory);
    await writeFile(join(directory, 'ca.crt'), ca);
    await writeFile(join(directory, 'tls.crt'), certificate);
    await writeFile(join(directory, 'tls.key'), key);
    secrets[`salvor-${role}-tls`] = directory;
  }
  const values = join(scope.directory, 'values.json');
  const upstreams = { [upstream.host]: { url: upstream.url, ...options.upstream } };
  // Or a node that an image is removed from could still have it, and there would be nothing to pull.
  const agent = { copies: { wanted: 0 } };
  await writeFile(values, JSON.stringify({ config: { registry: { upstreams }, agent } }));
  const sources = {
    rendered: render('minimal', '--values', values),
    rootDirectory,
    secrets,
    apiToken,
    api: { address: apiHost.address, port: apiPort },
  };
  const nodes: PodNode[] = [];
  for (const host of hosts) nodes.push(await PodNode.create(scope, { host, sources }));
  for (const node of nodes) await node.startPod();
  return {
    network,
    nodes,
    upstream,
    upstreamHost,
    api,
    add: async (name) => PodNode.create(scope, { host: await network.add(name), sources }),
  };
}

/** Content comes over loopback; then the same content is served on a machine of its own. */
async function startUpstream(
  scope: TestScope,
  { fill, host }: { host: NetworkHost; fill: (url: string) => Promise<void> },
): Promise<DockerRegistry> {
  const staging = await startDockerRegistry(scope, { name: 'staging' });
  await fill(staging.url);
  await staging.program.stop();
  const upstream = await startDockerRegistry(scope, {
    name: 'upstream',
    storageDirectory: staging.storageDirectory,
    port: upstreamPort,
    network: host,
  });
  await waitForListener(host, { address: host.address, port: upstreamPort });
  return upstream;
}

async function startApi(
  scope: TestScope,
  { apiHost, hosts }: { apiHost: NetworkHost; hosts: readonly NetworkHost[] },
): Promise<{ api: Program; apiToken: Record<string, string> }> {
  const { ca, cert, key } = await issueServerCertificate(await createAuthority(), {
    address: apiHost.address,
  });
  const endpoints = hosts.map(({ address, name }) => ({
    addresses: [address],
    nodeName: name,
    conditions: { ready: true },
  }));
  const slice = {
    metadata: {
      name: 'salvor-agents-1',
      namespace,
      labels: { 'kubernetes.io/service-name': 'salvor-agents' },
    },
    addressType: 'IPv4',
    ports: [{ name: 'peers', port: agentPort }],
    endpoints,
  };
  const settings = join(scope.directory, 'api', 'settings.json');
  await mkdir(join(settings, '..'));
  const { address, launcher } = apiHost;
  const content = { address, port: apiPort, token, tls: { cert, key } };
  await writeFile(settings, JSON.stringify({ ...content, endpointSlices: [slice] }));
  const program = join(import.meta.dirname, 'kube-api-program.ts');
  const [command, ...others] = [...launcher, process.execPath, program, settings];
  const api = await Program.start(scope, { name: 'api', command: command, arguments: others });
  await api.waitForLine(/^ready$/, { timeoutMs: 20_000 });
  return { api, apiToken: { token, 'ca.crt': ca, namespace } };
}

/** @returns the text of a file of a node's state; undefined when there is none */
export async function stateFile(
  scope: TestScope,
  { node, file }: { readonly node: string; readonly file: string },
): Promise<string | undefined> {
  const path = join(scope.directory, node, 'salvor-state', file);
  return readFile(path, 'utf8').catch(() => undefined);
}
