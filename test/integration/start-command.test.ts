import { readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { startContainerd, type ContainerdNode } from '../support/containerd-node.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { expectOciError } from '../support/expect-oci-error.ts';
import { buildImage, type Image } from '../support/image.ts';
import { sha256 } from '../support/layer.ts';
import { get, getHash, pullImage } from '../support/oci-client.ts';
import { freePort } from '../support/ports.ts';
import { Program } from '../support/process.ts';
import { pushImage } from '../support/push.ts';
import { skopeoCopy } from '../support/skopeo.ts';
import { suiteScope, type TestScope } from '../support/test-scope.ts';
import { repositoryRoot } from '../support/tools.ts';

const scope = suiteScope('start-command');
const registryName = 'registry.test';
const mebibyte = 1024 ** 2;

/** `salvor start` as a user runs it, over and over again on the same port and directory. */
class OneMachine {
  readonly port: number;
  readonly url: string;
  readonly storePath: string;
  readonly temporaryDirectory: string;
  readonly #scope: TestScope;
  readonly #name: string;
  readonly #configPath: string;
  #program: Program | undefined;
  #starts = 0;

  private constructor(testScope: TestScope, name: string, port: number) {
    this.#scope = testScope;
    this.#name = name;
    this.port = port;
    this.url = `http://127.0.0.1:${port}`;
    this.storePath = join(testScope.directory, `${name}-store`);
    this.temporaryDirectory = join(testScope.socketDirectory, name);
    this.#configPath = join(testScope.directory, `${name}.json`);
  }

  static async start(
    testScope: TestScope,
    options: { readonly name: string; readonly upstream: string; readonly maxSizeBytes?: number },
  ): Promise<OneMachine> {
    const machine = new OneMachine(testScope, options.name, await freePort());
    const { maxSizeBytes = 100 * mebibyte } = options;
    const config = {
      node: { name: options.name },
      registry: {
        defaultUpstream: registryName,
        upstreams: { [registryName]: { url: options.upstream } },
      },
      start: {
        listen: `127.0.0.1:${machine.port}`,
        admin: '',
        store: { path: machine.storePath, maxSizeBytes },
      },
    };
    await writeFile(machine.#configPath, JSON.stringify(config));
    await mkdir(machine.temporaryDirectory);
    await machine.start();
    return machine;
  }

  get program(): Program {
    if (this.#program === undefined) throw new Error(`Cannot use ${this.#name} before its start`);
    return this.#program;
  }

  async start(): Promise<void> {
    this.#starts += 1;
    this.#program = await Program.start(this.#scope, {
      name: `${this.#name}-${this.#starts}`,
      command: process.execPath,
      arguments: [join(repositoryRoot, 'src', 'main.ts'), 'start', '--config', this.#configPath],
      env: { ...process.env, TMPDIR: this.temporaryDirectory },
    });
    await this.program.waitForLine(/"msg":"ready"/, { timeoutMs: 20_000 });
  }

  /** What this start of the program logged about requests for blobs. */
  blobSources(): string[] {
    return this.program
      .lines()
      .filter(({ text }) => text.includes('"msg":"request"'))
      .map(({ text }) => JSON.parse(text) as { url: string; method: string; source: string })
      .filter(({ url, method }) => url.includes('/blobs/') && method === 'GET')
      .map(({ source }) => source);
  }

  /** Bytes of the blobs on disk, those that are still being received included. */
  async storedBytes(): Promise<number> {
    const directories = [join(this.storePath, 'blobs', 'sha256'), join(this.storePath, 'ingest')];
    const sizes = directories.map(async (directory) => {
      const names = await readdir(directory);
      // One that has just been committed or evicted is not there any more.
      const sizeOf = (name: string): Promise<number> =>
        stat(join(directory, name)).then(
          ({ size }) => size,
          () => 0,
        );
      return (await Promise.all(names.map(sizeOf))).reduce((sum, size) => sum + size, 0);
    });
    return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
  }
}

let upstream: DockerRegistry;
let copies = 0;

async function push(repository: string, layerBytes: readonly number[]): Promise<Image> {
  const image = await buildImage({
    directory: scope().directory,
    layers: layerBytes.map((randomBytes, index) => ({
      randomBytes,
      seed: `${repository}-${index}`,
    })),
  });
  await pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, image);
  return image;
}

/** Copies with skopeo and checks every digest. */
async function expectCopy(machine: OneMachine, path: string, image: Image): Promise<void> {
  copies += 1;
  const directory = join(scope().directory, `copy-${copies}`);
  const from = `docker://127.0.0.1:${machine.port}/${path}`;
  await skopeoCopy(scope(), { from, to: `dir:${directory}` });
  expect(await readFile(join(directory, 'manifest.json'))).toEqual(image.manifest);
  for (const { digest } of image.blobs) {
    expect(sha256(await readFile(join(directory, digest.slice('sha256:'.length))))).toBe(digest);
  }
}

async function expectPull(node: ContainerdNode, reference: string, image: Image): Promise<void> {
  await node.pull(reference);
  for (const { digest } of [image, ...image.blobs]) await node.verifyBlob(digest);
  expect(await node.isUnpacked(reference)).toBe(true);
}

async function isServed(machine: OneMachine, repository: string): Promise<boolean> {
  const answer = await get(`${machine.url}/v2/${repository}/manifests/v1`);
  if (answer.status === 200) return true;
  expectOciError(answer, { status: 503, code: 'UNAVAILABLE' });
  return false;
}

beforeAll(async () => {
  upstream = await startDockerRegistry(scope());
});

describe.each(['SIGTERM', 'SIGKILL'] as const)('salvor start, ended by %s', (signal) => {
  const repository = `team/${signal.toLowerCase()}`;
  const byTag = `${registryName}/${repository}:v1`;
  let machine: OneMachine;
  let image: Image;

  beforeAll(async () => {
    if (upstream.program.hasExited) await upstream.restart();
    image = await push(repository, [100_000, 5_000_000]);
    machine = await OneMachine.start(scope(), {
      name: signal.toLowerCase(),
      upstream: upstream.url,
    });
  });

  test('passes on what the registry has', async () => {
    await expectCopy(machine, byTag, image);

    expect(machine.blobSources()).toEqual(image.blobs.map(() => 'upstream'));
  });

  test('serves what has passed when the registry is dead', async () => {
    await upstream.kill('SIGKILL');

    await expectCopy(machine, byTag, image);
    await expectCopy(machine, `${registryName}/${repository}@${image.digest}`, image);
    await expectCopy(machine, `${repository}:v1`, image);

    const { length } = image.blobs;
    expect(machine.blobSources().slice(length)).toEqual(
      Array.from({ length: 3 * length }, () => `node/${signal.toLowerCase()}`),
    );
  });

  test('keeps an image layout that other programs read', async () => {
    const directory = join(scope().directory, `layout-${signal}`);
    await skopeoCopy(scope(), {
      from: `oci:${machine.storePath}:${byTag}`,
      to: `dir:${directory}`,
    });
    expect(await readFile(join(directory, 'manifest.json'))).toEqual(image.manifest);
  });

  test('serves tags and blobs after it was started again beside a dead registry', async () => {
    await machine.program.kill(signal);
    const exit = await machine.program.exited;
    if (signal === 'SIGTERM') {
      expect(exit).toEqual({ code: 0, signal: null });
      expect(await readdir(machine.temporaryDirectory)).toEqual([]);
    }
    await machine.start();

    await expectCopy(machine, byTag, image);
    await expectCopy(machine, `${repository}@${image.digest}`, image);
    const pulled = await pullImage({ baseUrl: machine.url, repository, reference: 'v1' });
    expect(pulled.digest).toBe(image.digest);
    expect(new Set(machine.blobSources())).toEqual(new Set([`node/${signal.toLowerCase()}`]));
  });

  test('serves a containerd that never had the image', async () => {
    const node = await startContainerd(scope(), {
      name: `containerd-${signal.toLowerCase()}`,
      mirrors: [{ url: machine.url }],
    });
    await expectPull(node, byTag, image);
    expect(node.warnings()).toEqual([]);
    await node.removeImage(byTag);

    await node.ctrPull(byTag);

    for (const { digest } of image.blobs) await node.verifyBlob(digest);
  });

  test('says what it cannot serve', async () => {
    const answer = await get(`${machine.url}/v2/${repository}/manifests/other`);
    const { message } = expectOciError(answer, { status: 503, code: 'UNAVAILABLE' });
    expect(message).toContain('refused the connection');
  });
});

describe('the store of salvor start', () => {
  const maxSizeBytes = 4 * mebibyte;
  const names = ['bound/a', 'bound/b', 'bound/c', 'bound/d'];
  const tooBig = 'bound/too-big';
  let machine: OneMachine;
  const images = new Map<string, Image>();

  beforeAll(async () => {
    if (upstream.program.hasExited) await upstream.restart();
    for (const name of names) images.set(name, await push(name, [1_500_000]));
    images.set(tooBig, await push(tooBig, [5 * mebibyte]));
    machine = await OneMachine.start(scope(), {
      name: 'bound',
      upstream: upstream.url,
      maxSizeBytes,
    });
  });

  test('keeps its bound, newest images first', async () => {
    for (const repository of names) {
      await pullImage({ baseUrl: machine.url, repository, reference: 'v1' });
      expect(await machine.storedBytes()).toBeLessThanOrEqual(maxSizeBytes);
    }
    expect(await machine.storedBytes()).toBeGreaterThan(3_000_000);
  });

  test('keeps its bound when many pulls run at once', async () => {
    for (let round = 0; round < 3; round += 1) {
      await Promise.all(
        names.map((repository) => pullImage({ baseUrl: machine.url, repository, reference: 'v1' })),
      );
      expect(await machine.storedBytes()).toBeLessThanOrEqual(maxSizeBytes);
      expect(await readdir(join(machine.storePath, 'ingest'))).toEqual([]);
    }
  });

  test('passes on a blob that is larger than the bound, and keeps the others', async () => {
    const last = names.at(-1)!;
    await pullImage({ baseUrl: machine.url, repository: last, reference: 'v1' });
    const [layer] = images.get(tooBig)!.blobs.toSorted((a, b) => b.size - a.size);

    const answer = await getHash(`${machine.url}/v2/${tooBig}/blobs/${layer!.digest}`);

    expect(answer).toMatchObject({ status: 200, digest: layer!.digest });
    expect(await machine.storedBytes()).toBeLessThanOrEqual(maxSizeBytes);
    await upstream.kill('SIGKILL');
    expect(await isServed(machine, last)).toBe(true);
    const all = await Promise.all(names.map((name) => isServed(machine, name)));
    expect(all.filter(Boolean).length).toBeLessThan(names.length);
  });

  test('keeps its bound and its newest image through a restart', async () => {
    await machine.program.kill('SIGKILL');
    await machine.start();

    expect(await machine.storedBytes()).toBeLessThanOrEqual(maxSizeBytes);
    const last = names.at(-1)!;
    const pulled = await pullImage({ baseUrl: machine.url, repository: last, reference: 'v1' });
    expect(pulled.digest).toBe(images.get(last)!.digest);
  });
});
