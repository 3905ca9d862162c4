import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import type { Digest } from '../../src/oci/digest.ts';
import { createAuthority } from '../../src/rpc/certificates.ts';
import { ConnectProxy } from '../support/connect-proxy.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { DockerRegistry, startDockerRegistry } from '../support/docker-registry.ts';
import { buildImage, type Image } from '../support/image.ts';
import { get, pullImage, type PulledImage } from '../support/oci-client.ts';
import { pushImage } from '../support/push.ts';
import { issueServerCertificate } from '../support/server-certificate.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('proxy');
const registryName = 'registry.test';
// What the certificate is for. The proxy alone knows where it is.
const place = 'localhost:443';

let proxy: ConnectProxy;
let node: DirectoryNode;
let holder: DirectoryNode;
const images = new Map<string, Image>();

async function publish(baseUrl: string, repository: string): Promise<void> {
  const image = await buildImage({
    directory: scope().directory,
    layers: [{ randomBytes: 300_000, seed: repository }],
  });
  await pushImage({ repository, tag: 'v1', baseUrl }, image);
  images.set(repository, image);
}

/** A registry over https, with content that was pushed to it before. */
async function startSecureRegistry(repositories: readonly string[]): Promise<{
  readonly registry: DockerRegistry;
  readonly ca: string;
}> {
  const plain = await startDockerRegistry(scope(), { name: 'plain' });
  for (const repository of repositories) await publish(plain.url, repository);
  await plain.kill('SIGKILL');
  const issued = await issueServerCertificate(await createAuthority());
  const paths = { ca: '', cert: '', key: '' };
  for (const name of ['ca', 'cert', 'key'] as const) {
    paths[name] = join(scope().directory, `registry-${name}.pem`);
    await writeFile(paths[name], issued[name]);
  }
  const registry = await startDockerRegistry(scope(), {
    name: 'secure',
    tls: { certificate: paths.cert, key: paths.key },
    storageDirectory: plain.storageDirectory,
  });
  return { registry, ca: paths.ca };
}

/** As if the holder had pulled the image. */
async function giveToHolder(repository: string): Promise<void> {
  const { digest, mediaType, manifest, blobs } = images.get(repository)!;
  await holder.hold(digest, manifest);
  for (const blob of blobs) {
    await holder.hold(blob.digest, 'data' in blob ? blob.data : await readFile(blob.path));
  }
  await holder.observe(`${registryName}/${repository}:v1`, {
    digest: digest as Digest,
    mediaType,
    sizeBytes: manifest.length,
    observedAtMs: Date.now(),
  });
}

beforeAll(async () => {
  const repositories = ['team/app', 'team/second', 'team/third'];
  const { registry, ca } = await startSecureRegistry(repositories);
  proxy = await ConnectProxy.start({ addresses: { [place]: registry.port } });
  scope().defer(() => proxy.close());
  ({ node, holder } = await DirectoryNode.createGroup(scope(), ['node', 'holder'], {
    upstreams: { [registryName]: { url: 'https://localhost', ca } },
    registry: { budgets: { probeIntervalMs: 300 } },
    launcher: ['env', `HTTPS_PROXY=${proxy.url}`],
  }));
  await Promise.all([node.startAgent(), holder.startAgent()]);
  await node.startRegistry();
  await giveToHolder('team/second');
  await giveToHolder('team/third');
});

async function pull(repository: string): Promise<PulledImage> {
  const pulled = await pullImage({
    baseUrl: node.url,
    repository,
    reference: 'v1',
    ns: registryName,
  });
  expect(pulled.digest).toBe(images.get(repository)!.digest);
  return pulled;
}

function sources(pulled: PulledImage): (string | undefined)[] {
  return [...new Set(pulled.contents.map(({ source }) => source))].toSorted();
}

async function state(): Promise<{ state: string; cause?: string; reason?: string }> {
  const { body } = await get(`http://127.0.0.1:${node.adminPort}/status`);
  const { upstreams } = JSON.parse(body.toString()) as {
    upstreams: { state: string; cause?: string; reason?: string }[];
  };
  return upstreams[0]!;
}

async function outages(cause: string): Promise<string | undefined> {
  const { body } = await get(`http://127.0.0.1:${node.adminPort}/metrics`);
  const line = `salvor_registry_upstream_outages_total{registry="${registryName}",cause="${cause}"} `;
  const found = body
    .toString()
    .split('\n')
    .find((each) => each.startsWith(line));
  return found?.slice(line.length);
}

// Each begins where the one before it ends.
describe('a registry behind a proxy', () => {
  test('gives an image through it', async () => {
    expect(sources(await pull('team/app'))).toEqual(['upstream']);
    expect(new Set(proxy.tunnels)).toEqual(new Set([place]));
  });

  test('is in outage when the proxy cannot reach it: nodes answer for its tags', async () => {
    proxy.mode = { status: 502 };
    proxy.cut();
    expect(sources(await pull('team/second'))).toEqual(['memory', 'node/holder']);
    expect(await state()).toMatchObject({
      state: 'outage',
      cause: 'gateway',
      reason: `The proxy ${proxy.host} cannot reach localhost (502)`,
    });
    expect(await outages('gateway')).toBe('1');
  });

  test('is back as soon as the proxy reaches it', async () => {
    proxy.mode = 'pass';
    await waitFor(async () => (await state()).state === 'up', { what: 'the outage to end' });
    expect((await pull('team/app')).digest).toBe(images.get('team/app')!.digest);
  });

  test('is in outage when the proxy is dead, which is told apart', async () => {
    const { host } = proxy;
    await proxy.close();
    expect(sources(await pull('team/third'))).toEqual(['memory', 'node/holder']);
    expect(await state()).toMatchObject({
      state: 'outage',
      cause: 'proxy',
      reason: `The proxy ${host} on the way to localhost refused the connection (ECONNREFUSED)`,
    });
    expect(await outages('proxy')).toBe('1');
    expect(await outages('gateway')).toBe('1');
  });
});
