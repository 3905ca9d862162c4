import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { createAuthority, type Authority } from '../../src/rpc/certificates.ts';
import { faultImage } from '../faults/matrix/fault-image.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { FakeKubeApi } from '../support/fake-kube-api.ts';
import { NameServer } from '../support/name-server.ts';
import { get } from '../support/oci-client.ts';
import { freePort } from '../support/ports.ts';
import { issueServerCertificate } from '../support/server-certificate.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('membership');
const registryName = 'registry.test';
const image = faultImage('membership', { layerBytes: 1000 });
let authority: Authority;
let kubeconfig: string;
let api: FakeKubeApi;

beforeAll(async () => {
  authority = await createAuthority();
  const tls = await issueServerCertificate(authority);
  api = await FakeKubeApi.start(scope(), tls);
  api.token = 't';
  kubeconfig = join(scope().directory, 'kubeconfig');
  const ca = Buffer.from(tls.ca).toString('base64');
  const context = { cluster: 'c', user: 'u', namespace: 'salvor' };
  await writeFile(
    kubeconfig,
    JSON.stringify({
      'current-context': 'here',
      contexts: [{ name: 'here', context }],
      clusters: [{ name: 'c', cluster: { server: api.url, 'certificate-authority-data': ca } }],
      users: [{ name: 'u', user: { token: 't' } }],
    }),
  );
});

async function createNode(
  name: string,
  options: { readonly members: object; readonly launcher?: readonly string[] },
): Promise<{ node: DirectoryNode; address: string }> {
  const address = `127.0.0.1:${await freePort()}`;
  const { members, launcher = [] } = options;
  const agent = { members };
  // Nothing listens at the upstream.
  const upstreams = { [registryName]: { url: `http://127.0.0.1:${await freePort()}` } };
  const own = { name, agentAddress: address, members: [], upstreams, agent, launcher };
  return { node: await DirectoryNode.create(scope(), own, authority), address };
}

/** One slice of a host-network Service; on one machine each node needs a port of its own. */
function publish(addresses: Readonly<Record<string, string>>): void {
  for (const [nodeName, address] of Object.entries(addresses)) {
    api.put('endpointslices', {
      metadata: {
        name: `salvor-${nodeName}`,
        namespace: 'salvor',
        labels: { 'kubernetes.io/service-name': 'salvor' },
      },
      addressType: 'IPv4',
      ports: [{ name: 'agent', port: Number(address.split(':')[1]) }],
      endpoints: [{ addresses: ['127.0.0.1'], nodeName, conditions: { ready: false } }],
    });
  }
}

const blob = image.layer;

async function pull(node: DirectoryNode): Promise<{ status: number; source: unknown }> {
  const url = `${node.url}/v2/team/app/blobs/${blob.digest}?ns=${registryName}`;
  const { status, headers } = await get(url);
  return { status, source: headers['salvor-source'] };
}

/** Until the registry has found its agent again, which was started anew. */
const pulls = (node: DirectoryNode): Promise<unknown> =>
  waitFor(async () => (await pull(node)).status === 200, { what: 'a pull' });

interface Status {
  readonly members: {
    readonly source: string;
    readonly count: number;
    readonly list: readonly { readonly name: string }[];
  };
}

async function statusOf(node: DirectoryNode): Promise<Status['members']> {
  const { body } = await get(`http://127.0.0.1:${node.agentAdminPort}/status`);
  return (JSON.parse(body.toString()) as Status).members;
}

async function metricsOf(node: DirectoryNode): Promise<string> {
  return (await get(`http://127.0.0.1:${node.agentAdminPort}/metrics`)).body.toString();
}

const knows = (node: DirectoryNode, count: number): Promise<unknown> =>
  waitFor(async () => (await statusOf(node)).count === count, { what: `${count} members` });

describe('salvor agent', () => {
  test('Agent learns of other nodes from EndpointSlices, and knows them without the API server', async () => {
    const members = {
      source: 'kubernetes',
      kubernetes: { namespace: 'salvor', service: 'salvor', kubeconfig },
    };
    const holder = await createNode('holder', { members });
    const reader = await createNode('reader', { members });
    await holder.node.hold(blob.digest, blob.bytes);
    await holder.node.startAgent();
    await reader.node.startAgent();
    await reader.node.startRegistry();
    expect(await pull(reader.node)).toMatchObject({ status: 503 });
    publish({ holder: holder.address, reader: reader.address });
    await knows(reader.node, 1);
    expect(await statusOf(reader.node)).toMatchObject({
      source: 'kubernetes salvor/salvor',
      list: [{ name: 'holder' }],
    });
    expect(await pull(reader.node)).toEqual({ status: 200, source: 'node/holder' });
    expect(await metricsOf(reader.node)).toMatch(/^salvor_agent_members 1$/m);

    await reader.node.agent.stop();
    await api.stop();
    await reader.node.startAgent();
    await pulls(reader.node);
    const path = join(scope().directory, 'reader', 'state', 'members.json');
    expect(JSON.parse(await readFile(path, 'utf8'))).toMatchObject({
      members: [{ name: 'holder', address: holder.address }],
    });
    await waitFor(async () =>
      /^salvor_agent_members_errors_total\{kind="list"\} [1-9]/m.test(await metricsOf(reader.node)),
    );

    // A configuration that names the members takes over in a running process, and gives way again.
    const edit = async (change: object): Promise<void> => {
      const config = JSON.parse(await readFile(reader.node.configPath, 'utf8')) as {
        agent: { members: object };
      };
      config.agent.members = change;
      await writeFile(`${reader.node.configPath}.new`, JSON.stringify(config));
      await rename(`${reader.node.configPath}.new`, reader.node.configPath);
    };
    await edit({ static: [] });
    await knows(reader.node, 0);
    await api.listen();
    await edit(members);
    await knows(reader.node, 1);
    expect(await pull(reader.node)).toEqual({ status: 200, source: 'node/holder' });
  });

  test('Agent learns of other nodes from DNS, and knows them without the name server', async () => {
    const holder = await createNode('dns-holder', { members: {} });
    await holder.node.hold(blob.digest, blob.bytes);
    await holder.node.startAgent();
    const names = await NameServer.start(scope(), '127.0.53.77');
    names.mode = 'answer';
    const port = Number(holder.address.split(':')[1]);
    const members = { source: 'dns', dns: { name: 'salvor.test', port, intervalMs: 1000 } };
    const reader = await createNode('dns-reader', { members, launcher: names.launcher });
    await reader.node.startAgent();
    await reader.node.startRegistry();
    await knows(reader.node, 1);
    expect(await pull(reader.node)).toMatchObject({ status: 200 });
    names.mode = 'silent';
    await reader.node.agent.stop();
    await reader.node.startAgent();
    expect(await statusOf(reader.node)).toMatchObject({ source: 'dns salvor.test', count: 1 });
    await pulls(reader.node);
  });
});
