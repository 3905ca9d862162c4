import { beforeAll, describe, expect, test } from 'vitest';
import { startCluster, type Cluster, type ClusterNode } from '../support/cluster.ts';
import { renderHostsToml } from '../support/containerd-config.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage, type Image } from '../support/image.ts';
import { get } from '../support/oci-client.ts';
import { pushImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';
import { startTokenServer, type TokenServer } from '../support/token-server.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('token-upstream');
// No such host: a pull that the mirror does not serve has nowhere else to go.
const registryName = 'registry.test';
const user = { username: 'alice', password: 'correct horse' };
const publicRepository = 'public/app';
const privateRepository = 'private/app';

let tokens: TokenServer;
let upstream: DockerRegistry;
let cluster: Cluster;
const images = new Map<string, Image>();

async function push(repository: string): Promise<void> {
  const image = await buildImage({
    directory: scope().directory,
    layers: [{ randomBytes: 200_000, seed: repository }],
  });
  const authorization = tokens.authorization([`repository:${repository}:pull,push`]);
  await pushImage({ baseUrl: upstream.url, repository, tag: 'v1', authorization }, image);
  images.set(repository, image);
}

async function expectWholeImage(node: ClusterNode, repository: string): Promise<void> {
  const image = images.get(repository)!;
  await node.containerd.verifyBlob(image.digest);
  for (const { digest } of image.blobs) await node.containerd.verifyBlob(digest);
  expect(await node.containerd.isUnpacked(`${registryName}/${repository}:v1`)).toBe(true);
}

/** @returns how a pull fails, without what differs from one pull to the next */
async function failureOf(pull: Promise<unknown>): Promise<string> {
  const error = await pull.then(
    () => undefined,
    (failure: unknown) => failure,
  );
  expect(error, 'the pull must fail').toBeInstanceOf(Error);
  return (error as Error).message;
}

beforeAll(async () => {
  tokens = await startTokenServer(scope(), {
    users: { [user.username]: user.password },
    publicRepositories: [publicRepository],
  });
  upstream = await startDockerRegistry(scope(), { auth: tokens.registryAuth });
  await push(publicRepository);
  await push(privateRepository);
  cluster = await startCluster(scope(), {
    nodes: ['a', 'b', 'c'],
    upstreams: {
      [registryName]: { url: upstream.url },
      [upstream.host]: { url: upstream.url },
    },
  });
});

describe('a registry that wants tokens', () => {
  test.each([publicRepository, privateRepository])(
    'is heard unchanged through the mirror: %s',
    async (repository) => {
      const { url } = cluster.node('a');
      for (const path of ['manifests/v1', `blobs/${images.get(repository)!.blobs[0]!.digest}`]) {
        const direct = await get(`${upstream.url}/v2/${repository}/${path}`);
        const mirrored = await get(`${url}/v2/${repository}/${path}?ns=${registryName}`);

        expect(direct.status).toBe(401);
        expect(direct.headers['www-authenticate']).toContain(`realm="${tokens.realm}"`);
        expect(mirrored.status).toBe(401);
        expect(mirrored.body.toString()).toBe(direct.body.toString());
        for (const name of ['www-authenticate', 'content-type', 'content-length']) {
          expect(mirrored.headers[name]).toBe(direct.headers[name]);
        }
      }
    },
  );

  test('gives a public image to an anonymous pull', async () => {
    const node = cluster.node('a');
    tokens.requests.length = 0;

    await node.containerd.pull(`${registryName}/${publicRepository}:v1`);

    await expectWholeImage(node, publicRepository);
    expect(node.containerd.warnings()).toEqual([]);
    expect(tokens.requests.length).toBeGreaterThan(0);
    expect(tokens.requests.every(({ user: who }) => who === undefined)).toBe(true);
    const served = node.requests().filter(({ status }) => status === 200);
    expect(served.some(({ url }) => url.includes('/blobs/'))).toBe(true);
  });

  test('gives a private image to a pull with credentials', async () => {
    const node = cluster.node('a');
    tokens.requests.length = 0;
    const before = node.requests().length;

    await node.containerd.pull(`${registryName}/${privateRepository}:v1`, { auth: user });

    await expectWholeImage(node, privateRepository);
    expect(tokens.requests.some(({ user: who, status }) => who === 'alice' && status === 200)).toBe(
      true,
    );
    const statuses = new Set(
      node
        .requests()
        .slice(before)
        .map(({ status }) => status),
    );
    expect([...statuses].toSorted((x, y) => x - y)).toEqual([200, 401]);
    expect(node.registry.lines().some(({ text }) => text.includes(user.password))).toBe(false);
  });

  test.each([
    { what: 'a wrong password', auth: { ...user, password: 'wrong' } },
    { what: 'an unknown user', auth: { username: 'mallory', password: 'guess' } },
    { what: 'no credentials', auth: undefined },
  ])('refuses $what through the mirror as directly', async ({ auth }) => {
    const { containerd } = cluster.node('b');
    const reference = `${upstream.host}/${privateRepository}:v1`;
    const options = auth === undefined ? {} : { auth };
    const mirrors = [{ url: cluster.node('b').url }];
    const before = cluster.node('b').requests().length;

    // The mirror stands in for the registry as well, so that nobody else is asked.
    await containerd.writeHosts(renderHostsToml(mirrors, { server: mirrors[0]!.url }));
    const mirrored = await failureOf(containerd.pull(reference, options));
    await containerd.writeHosts('');
    const direct = await failureOf(containerd.pull(reference, options));
    await containerd.writeHosts(renderHostsToml(mirrors));

    expect(mirrored.replaceAll(`127.0.0.1:${cluster.node('b').registryPort}`, upstream.host)).toBe(
      direct,
    );
    // A request's line comes after its answer.
    await waitFor(() => cluster.node('b').requests().length > before, {
      what: 'the mirror to have been asked',
    });
    const asked = cluster.node('b').requests().slice(before);
    expect(asked.every(({ status }) => status === 401)).toBe(true);
    expect(await containerd.blobs()).toEqual([]);
  });

  test('refuses a token that is none', async () => {
    const headers = { authorization: 'Bearer none' };
    const path = `/v2/${privateRepository}/manifests/v1`;
    const direct = await get(`${upstream.url}${path}`, { headers });
    const mirrored = await get(`${cluster.node('a').url}${path}?ns=${registryName}`, { headers });

    expect(mirrored.status).toBe(401);
    expect(mirrored.headers['www-authenticate']).toBe(direct.headers['www-authenticate']);
    expect(mirrored.body.toString()).toBe(direct.body.toString());
  });

  test('does not let one client have from memory what another was given', async () => {
    const path = `/v2/${privateRepository}/manifests/${images.get(privateRepository)!.digest}`;
    const url = `${cluster.node('c').url}${path}?ns=${registryName}`;
    const scopes = [`repository:${privateRepository}:pull`];
    const headers = { authorization: tokens.authorization(scopes) };

    expect(await get(url, { headers })).toMatchObject({ status: 200 });
    expect(await get(url)).toMatchObject({ status: 401 });
  });

  // Until access is proven by the registry's own word, an outage makes it a matter of the cluster.
  test('leaves access to the cluster in the outage', async () => {
    const node = cluster.node('c');
    await upstream.kill('SIGKILL');
    tokens.requests.length = 0;
    const before = node.requests().length;

    await node.containerd.pull(`${registryName}/${publicRepository}:v1`);
    await node.containerd.pull(`${registryName}/${privateRepository}:v1`);

    await expectWholeImage(node, publicRepository);
    await expectWholeImage(node, privateRepository);
    expect(tokens.requests).toEqual([]);
    const blobs = node
      .requests()
      .slice(before)
      .filter(({ url }) => url.includes('/blobs/'));
    expect(blobs.length).toBe(4);
    expect(blobs.every(({ source }) => source === 'node/a')).toBe(true);
  });
});
