import { once } from 'node:events';
import { readFile, readdir, stat, truncate } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { startContainerd, type ContainerdNode } from '../support/containerd-node.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { startFaultProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { buildAttestation, buildImage, buildIndex, contentOf } from '../support/image.ts';
import type { Image } from '../support/image.ts';
import { cpuSeconds, listeningPorts, openFileDescriptors } from '../support/leaks.ts';
import { processesNaming, residentBytes, socketCounts } from '../support/leaks.ts';
import { get, getHash, head, pullImage } from '../support/oci-client.ts';
import { freePort } from '../support/ports.ts';
import { Program } from '../support/process.ts';
import { pushImage } from '../support/push.ts';
import { skopeoCopy } from '../support/skopeo.ts';
import { suiteScope, withScope } from '../support/test-scope.ts';
import { startTokenServer } from '../support/token-server.ts';
import { toolPath } from '../support/tools.ts';

const mib = 1024 * 1024;
const repository = 'team/app';
const scope = suiteScope('support');
let registry: DockerRegistry;
let image: Image;
let index: Image;

beforeAll(async () => {
  const directory = join(scope().directory, 'images');
  registry = await startDockerRegistry(scope());
  image = await buildImage({
    directory,
    layers: [
      { files: { 'etc/salvor/name': 'salvor' } },
      { randomBytes: 3 * mib },
      { randomBytes: 100_000, seed: 'zstd', compression: 'zstd' },
      { randomBytes: 100_000, seed: 'plain', compression: 'none' },
    ],
  });
  const foreign = await buildImage({
    directory,
    layers: [{ files: { arm: 'arm' } }],
    platform: { os: 'linux', architecture: process.arch === 'arm64' ? 'amd64' : 'arm64' },
  });
  index = buildIndex([image, foreign, buildAttestation(image)]);
  await pushImage({ baseUrl: registry.url, repository, tag: '1' }, index);
});

describe('containerd', () => {
  let node: ContainerdNode;
  beforeAll(async () => {
    node = await startContainerd(scope(), { name: 'node-a' });
  });

  test('pulls by CRI and unpacks', async () => {
    const ref = `${registry.host}/${repository}:1`;
    registry.clearAccesses();
    await node.pull(ref);

    const wanted = [index, image, ...image.blobs].map(({ digest }) => digest);
    expect((await node.blobs()).sort()).toEqual(wanted.sort());
    for (const digest of wanted) await node.verifyBlob(digest);
    expect(await node.isUnpacked(ref)).toBe(true);
    expect(await node.ingests()).toEqual([]);
    expect(node.warnings()).toEqual([]);
    const methods = registry.accesses().map(({ method, status }) => `${method} ${status}`);
    expect(methods.sort()).toEqual([
      ...Array.from({ length: wanted.length }, () => 'GET 200'),
      'HEAD 200',
    ]);
  });

  test('keeps its images through SIGKILL and forgets a removed one', async () => {
    const ref = `${registry.host}/${repository}:1`;
    await node.kill('SIGKILL');
    await node.restart();
    expect((await node.imageStatus(ref))?.repoTags).toEqual([ref]);

    await node.removeImage(ref);
    expect(await node.imageStatus(ref)).toBeUndefined();
  });

  test('pulls with ctr', async () => {
    const ref = `${registry.host}/${repository}@${index.digest}`;
    await node.ctrPull(ref);
    expect(await node.ctr(['images', 'list', '--quiet'])).toContain(ref);
  });

  test('reports what it does not find in its own words', async () => {
    await expect(node.pull(`${registry.host}/${repository}:none`)).rejects.toThrow(/not found/);
  });
});

describe('oci-client', () => {
  test('pulls every platform and recomputes all digests', async () => {
    const pulled = await pullImage({ baseUrl: registry.url, repository, reference: '1' });
    expect(pulled.digest).toBe(index.digest);
    const found = pulled.contents.map(({ digest, size }) => ({ digest, size }));
    expect(found).toEqual(expect.arrayContaining(contentOf(index)));
  });

  test('refuses altered bytes', () =>
    withScope('support-altered', async (own) => {
      const altered = await startDockerRegistry(own, { name: 'altered' });
      const layer = image.blobs[1]!;
      await pushImage({ baseUrl: altered.url, repository, tag: '1' }, image);
      const hex = layer.digest.slice('sha256:'.length);
      const blobs = join(altered.storageDirectory, 'docker/registry/v2/blobs/sha256');
      await truncate(join(blobs, hex.slice(0, 2), hex, 'data'), layer.size - 1);
      const target = { baseUrl: altered.url, repository, reference: '1' };
      await expect(pullImage(target)).rejects.toThrow(/the bytes are sha256:/);
    }));
});

test('skopeo copies an image with all its platforms', async () => {
  const target = join(scope().directory, 'copy');
  const from = `docker://${registry.host}/${repository}:1`;
  await skopeoCopy(scope(), { from, to: `dir:${target}`, all: true });
  expect(await readFile(join(target, 'manifest.json'))).toEqual(index.manifest);
  expect(await readdir(target)).toContain(image.blobs[1]!.digest.slice('sha256:'.length));
});

describe('FaultProxy', () => {
  const soon = { timeout: 10_000 };
  let proxy: FaultProxy;
  let layer: { digest: string; size: number };
  let blobUrl: string;
  let pingUrl: string;
  beforeAll(async () => {
    proxy = await startFaultProxy(scope(), { targetPort: registry.port });
    layer = image.blobs[2]!;
    blobUrl = `${proxy.url}/v2/${repository}/blobs/${layer.digest}`;
    pingUrl = `${proxy.url}/v2/`;
  });

  test('passes and records what went through', async () => {
    const seen = proxy.exchanges.length;
    const answer = await getHash(blobUrl, { headers: { authorization: 'Basic eDp5' } });
    expect(answer).toMatchObject({ status: 200, digest: layer.digest, size: layer.size });
    expect(proxy.exchanges.slice(seen)).toMatchObject([
      {
        method: 'GET',
        path: `/v2/${repository}/blobs/${layer.digest}`,
        headers: { authorization: 'Basic eDp5' },
        status: 200,
        bodyBytes: layer.size,
      },
    ]);
  });

  test.each(['fin', 'rst'] as const)('cuts at a byte of the body by %s', async (how) => {
    const isBlob = ({ path }: { path: string }): boolean => path.includes('/blobs/');
    await proxy.setMode({ kind: 'cut', afterBytes: 70_001, how, match: isBlob });
    expect((await get(pingUrl)).status).toBe(200);
    const seen = proxy.exchanges.length;
    const received = await readUntilClosed(proxy.port, new URL(blobUrl).pathname);
    expect(received.error).toBe(how === 'fin' ? undefined : 'ECONNRESET');
    // A reset may overtake the bytes before it.
    if (how === 'fin') expect(received.bodyBytes).toBe(70_001);
    expect(proxy.exchanges[seen]?.bodyBytes).toBe(70_001);
    await proxy.setMode({ kind: 'pass' });
  });

  test('stalls inside a body and goes on', async () => {
    await proxy.setMode({ kind: 'stall', afterBytes: 1000 });
    const stalled = getHash(blobUrl, { signal: AbortSignal.timeout(300) });
    await expect(stalled).rejects.toThrow();

    const seen = proxy.exchanges.length;
    const resumed = getHash(blobUrl);
    await expect.poll(() => proxy.exchanges[seen]?.bodyBytes, soon).toBe(1000);
    await proxy.setMode({ kind: 'pass' });
    expect((await resumed).digest).toBe(layer.digest);
  });

  test('refuses, and listens again on the same port', async () => {
    await proxy.setMode({ kind: 'refuse' });
    await expect(head(pingUrl)).rejects.toThrow(/ECONNREFUSED/);
    await proxy.setMode({ kind: 'pass' });
    expect((await head(pingUrl)).status).toBe(200);
  });

  test.each(['silent', 'blackhole'] as const)('accepts and says nothing: %s', async (kind) => {
    await proxy.setMode({ kind });
    const before = proxy.connectionCount;
    await expect(head(pingUrl, { signal: AbortSignal.timeout(300) })).rejects.toThrow();
    expect(proxy.connectionCount).toBe(before + 1);
    await proxy.setMode({ kind: 'pass' });
  });

  test('throttles', async () => {
    await proxy.setMode({ kind: 'throttle', bytesPerSecond: 200_000 });
    const answer = await getHash(`${proxy.url}/v2/${repository}/blobs/${image.blobs[3]!.digest}`);
    await proxy.setMode({ kind: 'pass' });
    expect(answer.totalMs).toBeGreaterThan(400);
  });

  test.each([1, 1.5 * mib, 'last'] as const)('kills the upstream after %s bytes', async (when) => {
    const afterBytes = when === 'last' ? layer.size : when;
    const seen = proxy.exchanges.length;
    proxy.killUpstreamAfterBytes(afterBytes, () => registry.kill('SIGKILL'), {
      match: ({ path }) => path.includes(layer.digest),
    });
    const answer = getHash(blobUrl);
    if (when === 'last') expect((await answer).digest).toBe(layer.digest);
    else await expect(answer).rejects.toThrow();
    await expect.poll(() => registry.program.hasExited, soon).toBe(true);
    expect(proxy.exchanges[seen]?.bodyBytes).toBe(afterBytes);
    await registry.restart();
    expect((await getHash(blobUrl)).digest).toBe(layer.digest);
  });
});

describe('TokenServer', () => {
  test('lets docker-registry serve who may pull', () =>
    withScope('support-tokens', async (own) => {
      const tokens = await startTokenServer(own, {
        users: { alice: 'secret' },
        publicRepositories: ['open/app'],
      });
      const guarded = await startDockerRegistry(own, { auth: tokens.registryAuth });
      for (const name of ['open/app', 'closed/app']) {
        const authorization = tokens.authorization([`repository:${name}:pull,push`]);
        const target = { baseUrl: guarded.url, repository: name, tag: '1', authorization };
        await pushImage(target, image);
      }
      expect((await head(`${guarded.url}/v2/open/app/manifests/1`)).status).toBe(401);

      const node = await startContainerd(own, { name: 'node-t' });
      await node.pull(`${guarded.host}/open/app:1`);
      const closed = `${guarded.host}/closed/app:1`;
      await expect(node.pull(closed)).rejects.toThrow();
      await expect(
        node.pull(closed, { auth: { username: 'alice', password: 'wrong' } }),
      ).rejects.toThrow();
      await node.pull(closed, { auth: { username: 'alice', password: 'secret' } });
      const from = `docker://${closed}`;
      await skopeoCopy(own, { from, to: `dir:${own.directory}/c`, credentials: 'alice:secret' });

      const kinds = new Set(
        tokens.requests.map(({ method, user, status }) => `${method} ${user} ${status}`),
      );
      expect(kinds).toContain('GET undefined 200');
      expect(kinds).toContain('POST alice 401');
      expect(kinds).toContain('POST alice 200');
      expect(kinds).toContain('GET alice 200');
    }));
});

describe('Program', () => {
  test('ends a program that ignores SIGTERM, even when it is stopped', () =>
    withScope('support-program', async (own) => {
      const program = await Program.start(own, {
        name: 'stubborn',
        command: '/bin/sh',
        arguments: ['-c', 'trap "" TERM; echo started; while :; do sleep 0.1; done'],
      });
      await program.waitForLine(/started/);
      await program.kill('SIGSTOP');
      await program.stop(200);
      expect(await program.exited).toEqual({ code: null, signal: 'SIGKILL' });
      expect(await readFile(program.logPath, 'utf8')).toBe('started\n');
    }));

  test('tells at once that a program has ended, with its last words', () =>
    withScope('support-program', async (own) => {
      const program = await Program.start(own, {
        name: 'brief',
        command: '/bin/sh',
        arguments: ['-c', 'echo cannot go on >&2; exit 3'],
      });
      const port = await freePort();
      await expect(program.waitForPort(port, { timeoutMs: 60_000 })).rejects.toThrow(
        /brief ended with 3\ncannot go on/,
      );
    }));
});

test('leaks counts what a process has open', async () => {
  const { pid, port } = registry;
  expect(await listeningPorts(pid)).toEqual([port]);
  const before = await socketCounts(pid);
  const files = await openFileDescriptors(pid);
  const socket = connect({ host: '127.0.0.1', port });
  await once(socket, 'connect');
  await expect.poll(async () => (await socketCounts(pid)).established).toBe(before.established + 1);
  expect(await openFileDescriptors(pid)).toBe(files + 1);
  socket.destroy();
  expect(await residentBytes(pid)).toBeGreaterThan(5 * mib);
  expect(await cpuSeconds(pid)).toBeGreaterThan(0);
  const found = await processesNaming(scope().directory);
  expect(found.map((process) => process.pid)).toContain(pid);
});

test('toolPath names the command that brings what is missing', () => {
  expect(() => toolPath('no-such-program')).toThrow(/npm run test:setup/);
});

test('withScope leaves no files and no programs behind', async () => {
  const { directory, pid } = await withScope('support-scope', async (own) => {
    const other = await startDockerRegistry(own);
    return { directory: own.directory, pid: other.pid };
  });
  await expect(stat(directory)).rejects.toThrow(/ENOENT/);
  await expect(stat(`/proc/${pid}`)).rejects.toThrow(/ENOENT/);
});

/** Reads an answer on a bare socket, so that a polite end and a reset can be told apart. */
async function readUntilClosed(
  port: number,
  path: string,
): Promise<{ bodyBytes: number; error: string | undefined }> {
  const socket = connect({ host: '127.0.0.1', port });
  let error: string | undefined;
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', (cause: NodeJS.ErrnoException) => {
    error = cause.code;
  });
  socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`);
  await once(socket, 'close').catch(() => undefined);
  const all = Buffer.concat(chunks);
  const bodyBytes = Math.max(0, all.length - all.indexOf('\r\n\r\n') - 4);
  return { bodyBytes, error };
}
