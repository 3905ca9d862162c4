import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';
import { createAuthority, issueIdentity } from '../../src/rpc/certificates.ts';
import type { Identity, Role } from '../../src/rpc/identity.ts';
import { startCluster, type Cluster, type ClusterNode } from '../support/cluster.ts';
import { startContainerd, type ContainerdNode } from '../support/containerd-node.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage } from '../support/image.ts';
import { freePort } from '../support/ports.ts';
import { sourceProgram } from '../support/program-path.ts';
import { pushImage, type PushedImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const run = promisify(execFile);
const scope = suiteScope('bootstrap');
const repository = 'team/salvor';
const privateRepository = 'team/secret';

interface Line {
  readonly method: string;
  readonly url: string;
  readonly status: number;
  readonly result: string;
}

let upstream: DockerRegistry;
let cluster: Cluster;
let a: ClusterNode;
/** A node on which nothing of Salvor runs. */
let fresh: ContainerdNode;
let images: Readonly<Record<'one' | 'two' | 'three', PushedImage>>;
let port: number;

/** Runs the program as somebody at a shell would. */
async function salvor(...words: readonly string[]): Promise<string> {
  const { command, main } = sourceProgram;
  const { stdout } = await run(command, [main, ...words], { timeout: 60_000 });
  return stdout;
}

const identityDirectory = (): string => join(scope().directory, 'baked');

/** What the fresh node shows from now on. */
async function bakeIdentity({ ca, certificate, key }: Identity): Promise<void> {
  await mkdir(identityDirectory(), { recursive: true });
  await writeFile(join(identityDirectory(), 'ca.crt'), ca);
  await writeFile(join(identityDirectory(), 'tls.crt'), certificate);
  await writeFile(join(identityDirectory(), 'tls.key'), key);
}

const identityFor = (role: Role): Promise<Identity> => issueIdentity(cluster.authority, [role]);

/** Bakes hosts.toml with neighbours in this order. */
async function bakeHosts(ports: readonly number[]): Promise<void> {
  await salvor(
    'hosts',
    'bootstrap',
    ...ports.flatMap((each) => ['--neighbour', `127.0.0.1:${each}`]),
    ...['--ca', join(identityDirectory(), 'ca.crt')],
    ...['--client-cert', join(identityDirectory(), 'tls.crt')],
    ...['--client-key', join(identityDirectory(), 'tls.key')],
    ...['--dir', fresh.certsDirectory],
  );
}

const hostsText = (): Promise<string> =>
  readFile(join(fresh.certsDirectory, '_default', 'hosts.toml'), 'utf8');

/** What the agent has logged about requests of new nodes, from a line on. */
function requests(from = 0): Line[] {
  return a.agent
    .lines(from)
    .filter(({ text }) => text.includes('"msg":"bootstrap request"'))
    .map(({ text }) => JSON.parse(text) as Line);
}

/** The same, once there is something: what an agent writes comes a little after its answers. */
async function someRequests(from: number): Promise<Line[]> {
  const some = (): Line[] | undefined => (requests(from).length > 0 ? requests(from) : undefined);
  return await waitFor(some, { what: 'a line of the agent about a request' });
}

async function expectSameBytes({ blobs, digest }: PushedImage): Promise<void> {
  for (const each of [digest, ...blobs.map((blob) => blob.digest)]) {
    await fresh.verifyBlob(each);
    const [here, there] = [fresh.blobPath(each), a.containerd.blobPath(each)];
    expect((await readFile(here)).equals(await readFile(there)), each).toBe(true);
  }
}

beforeAll(async () => {
  upstream = await startDockerRegistry(scope());
  const push = async (name: string, tag: string): Promise<PushedImage> => {
    const layers = [
      { randomBytes: 300_000, seed: tag },
      { randomBytes: 9_000_000, seed: tag },
    ];
    const built = await buildImage({ directory: scope().directory, layers });
    return pushImage({ baseUrl: upstream.url, repository: name, tag }, built);
  };
  images = {
    one: await push(repository, 'one'),
    two: await push(repository, 'two'),
    three: await push(privateRepository, 'three'),
  };
  port = await freePort();
  cluster = await startCluster(scope(), {
    nodes: ['a'],
    upstreams: { [upstream.host]: { url: upstream.url } },
    agent: {
      bootstrap: { listen: `127.0.0.1:${port}`, repositories: [`${upstream.host}/${repository}`] },
    },
  });
  a = cluster.node('a');
  for (const tag of ['one', 'two'])
    await a.containerd.pull(`${upstream.host}/${repository}:${tag}`);
  await a.containerd.pull(`${upstream.host}/${privateRepository}:three`);
  await upstream.kill('SIGKILL');
  fresh = await startContainerd(scope(), { name: 'fresh', hostsToml: '' });
  await bakeIdentity(await identityFor('bootstrap'));
  // One neighbour is gone.
  await bakeHosts([await freePort(), port]);
});

describe('a node that is new in an outage', () => {
  test('pulls by tag from a neighbour, past one that is dead', async () => {
    const reference = `${upstream.host}/${repository}:one`;
    await fresh.pull(reference);
    await expectSameBytes(images.one);
    expect(await fresh.isUnpacked(reference)).toBe(true);
    const lines = requests();
    expect(lines.map(({ status }) => status)).toEqual(lines.map(() => 200));
    expect(lines[0]).toMatchObject({ method: 'HEAD', result: 'manifest' });
    const blobs = lines.filter(({ result }) => result === 'blob').map(({ url }) => url);
    expect(blobs, 'one GET per blob').toHaveLength(images.one.blobs.length);
  });

  test('pulls by digest', async () => {
    await fresh.pull(`${upstream.host}/${repository}@${images.two.digest}`);
    await expectSameBytes(images.two);
  });

  test('gets nothing else that the neighbour has', async () => {
    const from = a.agent.lineCount;
    for (const reference of [':three', `@${images.three.digest}`]) {
      const pull = fresh.pull(`${upstream.host}/${privateRepository}${reference}`);
      await expect(pull).rejects.toThrow();
    }
    const pull = fresh.pull(`${upstream.host}/${repository}@${images.three.digest}`);
    await expect(pull).rejects.toThrow();
    const lines = await someRequests(from);
    expect(new Set(lines.map(({ status }) => status))).toEqual(new Set([404]));
    expect(await fresh.blobs()).not.toContain(images.three.digest);
  });

  test.each(['agent', 'registry'] as const)(
    'gets nothing with a certificate for the role %s',
    async (role) => {
      await fresh.removeImage(`${upstream.host}/${repository}:one`);
      await bakeIdentity(await identityFor(role));
      const from = a.agent.lineCount;
      await expect(fresh.pull(`${upstream.host}/${repository}:one`)).rejects.toThrow();
      const lines = await someRequests(from);
      expect(new Set(lines.map(({ result }) => result))).toEqual(new Set(['wrong_role']));
    },
  );

  test('gets nothing with a certificate that has ended, or of another authority', async () => {
    const dayMs = 86_400_000;
    const nowMs = Date.now() - 2 * dayMs;
    const ended = await issueIdentity(cluster.authority, ['bootstrap'], { nowMs, validMs: dayMs });
    const foreign = await issueIdentity(await createAuthority(), ['bootstrap']);
    for (const identity of [ended, { ...foreign, ca: ended.ca }]) {
      await bakeIdentity(identity);
      const from = a.agent.lineCount;
      await expect(fresh.pull(`${upstream.host}/${repository}:one`)).rejects.toThrow();
      expect(requests(from)).toEqual([]);
    }
  });

  test('speaks to no agent that has another address than its certificate says', async () => {
    await bakeIdentity(await identityFor('bootstrap'));
    await salvor(
      ...['hosts', 'bootstrap', '--neighbour', `localhost:${port}`],
      ...['--ca', join(identityDirectory(), 'ca.crt')],
      ...['--client-cert', join(identityDirectory(), 'tls.crt')],
      ...['--client-key', join(identityDirectory(), 'tls.key'), '--dir', fresh.certsDirectory],
    );
    const from = a.agent.lineCount;
    await expect(fresh.pull(`${upstream.host}/${repository}:one`)).rejects.toThrow();
    expect(requests(from)).toEqual([]);
    await bakeHosts([port]);
    await fresh.pull(`${upstream.host}/${repository}:one`);
  });

  test('goes on with a new authority as soon as the agent has taken it over', async () => {
    const directory = join(scope().directory, 'a-salvor');
    const next = await createAuthority();
    const identity = await issueIdentity(next, ['agent', 'registry'], { addresses: ['127.0.0.1'] });
    await writeFile(join(directory, 'ca.crt'), identity.ca);
    await writeFile(join(directory, 'tls.key'), identity.key);
    await writeFile(join(directory, 'tls.crt'), identity.certificate);
    await a.agent.waitForLine(/identity reloaded/, { timeoutMs: 20_000 });
    await fresh.removeImage(`${upstream.host}/${repository}:one`);
    await expect(fresh.pull(`${upstream.host}/${repository}:one`)).rejects.toThrow();
    await bakeIdentity(await issueIdentity(next, ['bootstrap']));
    await fresh.pull(`${upstream.host}/${repository}:one`);
    await expectSameBytes(images.one);
  });

  test('asks Salvor in the place of neighbours once it has come', async () => {
    const baked = await hostsText();
    const state = ['--node-state-directory', join(scope().directory, 'fresh-state')];
    const socket = ['--agent-store-containerd-socket', fresh.socketPath];
    const common = [...state, ...socket, '--config-path', fresh.certsDirectory];
    await salvor('hosts', 'write', ...common, '--mirror-url', a.url);
    expect(await hostsText()).toContain(`[host."${a.url}"]`);
    expect(await hostsText()).not.toContain(String(port));
    const upstreams = join(scope().directory, 'fresh-state', 'upstreams', 'hosts.json');
    await expect(readFile(upstreams, 'utf8')).rejects.toThrow('ENOENT');

    const from = a.agent.lineCount;
    await fresh.pull(`${upstream.host}/${privateRepository}:three`);
    await expectSameBytes(images.three);
    expect(requests(from)).toEqual([]);

    await salvor('hosts', 'restore', ...state);
    expect(await hostsText()).toBe(baked);
  });
});
