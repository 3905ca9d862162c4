import { randomBytes } from 'node:crypto';
import { access, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, beforeAll, describe, expect, it } from 'vitest';

import { ContainerdConnection } from '../../src/agent/containerd/containerd-connection.ts';
import type { ContainerdConnectionOptions } from '../../src/agent/containerd/containerd-connection.ts';
import { ContainerdStore } from '../../src/agent/containerd/containerd-store.ts';
import type { ContainerdStoreOptions } from '../../src/agent/containerd/containerd-store.ts';
import { StoreUnavailableError } from '../../src/agent/store.ts';
import { digestOf } from '../../src/oci/digest.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { MEDIA_TYPE } from '../../src/oci/media-type.ts';
import { silentLogger } from '../../src/telemetry/logger.ts';
import { ContainerdFiller } from '../support/containerd-filler.ts';
import { startContainerd } from '../support/containerd-node.ts';
import type { ContainerdNode } from '../support/containerd-node.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';
import {
  addBlob,
  addManifest,
  collect,
  contentStoreContract,
  digestFrom,
  nameList,
} from './content-store.contract.ts';
import type { StoreHarness } from './content-store.contract.ts';

/** As if containerd's directory were not mounted: only the socket is left. */
const unreadablePath = '/proc/self/no-such-directory';
const startTimeoutMs = 60_000;
const garbageName = 'registry.test/garbage:1';
const keptName = 'registry.test/kept:1';

const scope = suiteScope('containerd-store');
let node: ContainerdNode;

beforeAll(async () => {
  node = await startContainerd(scope(), { name: 'contract' });
}, startTimeoutMs);

type OpenOptions = ContainerdStoreOptions & Partial<ContainerdConnectionOptions>;

function openStore(options: OpenOptions = {}, warnings: string[] = []): ContainerdStore {
  const log = { ...silentLogger, warn: (_: unknown, message: string) => warnings.push(message) };
  const connection = new ContainerdConnection({ socketPath: node.socketPath, ...options });
  return new ContainerdStore(options, { connection, log });
}

/** Fills a namespace of the daemon; with the socket alone, only what is in there can be seen. */
function fillerOf(namespace: string): ContainerdFiller {
  const filler = new ContainerdFiller(node.socketPath, namespace);
  scope().defer(() => filler.close());
  return filler;
}

async function removeBlob(filler: ContainerdFiller, digest: Digest): Promise<void> {
  await filler.removeBlob(digest);
  // Removing a name and waiting for it is how containerd is made to collect garbage at once.
  await filler.addImage(garbageName, { mediaType: 'text/plain', digest, size: 1 });
  await filler.removeImage(garbageName);
  await waitFor(async () => !(await exists(node.blobPath(digest))), { what: 'the end of a blob' });
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

function harnessOf(store: ContainerdStore, namespace = 'k8s.io'): StoreHarness {
  const filler = fillerOf(namespace);
  let writes = 0;
  return {
    store,
    async addBlob(bytes) {
      await filler.addBlob(bytes);
    },
    removeBlob: (digest) => removeBlob(filler, digest),
    addName: (name, { digest, mediaType, sizeBytes: size }) =>
      filler.addImage(name, { digest, mediaType, size }),
    async addOddRecords({ digest, mediaType, sizeBytes: size }) {
      const target = { digest, mediaType, size };
      const names = [
        digestOf(randomBytes(8)),
        `registry.test/odd@${digest}`,
        `registry.test/odd:1@${digest}`,
        'import-2026-01-01',
        'no tag / at all',
        'registry.test/untagged',
        'docker.io/short:1',
        'registry.test/UPPER:1',
        `registry.test/${'long'.repeat(300)}:1`,
      ];
      for (const name of names) await filler.addImage(name, target);
      const config = { ...target, mediaType: MEDIA_TYPE.ociConfig };
      await filler.addImage('registry.test/odd:config', config);
      const unknown = { ...target, digest: `sha384:${'a'.repeat(96)}` };
      await filler.addImage('registry.test/odd:algorithm', unknown);
      return [...names, 'registry.test/odd:config', 'registry.test/odd:algorithm'];
    },
    async beginWrite(digest, data) {
      writes += 1;
      const ref = writes % 2 === 0 ? `layer-${digest}` : `layer-registry.test/a@${digest}`;
      const write = await filler.beginWrite(digest, { ref, data });
      scope().defer(() => write.drop());
      return () => write.commit();
    },
    close: () => store.close(),
  };
}

contentStoreContract('ContainerdStore by its files', {
  kind: 'containerd',
  open: async () => harnessOf(openStore()),
});

contentStoreContract('ContainerdStore by its socket alone', {
  kind: 'containerd',
  async open() {
    const namespace = 'by-socket';
    return harnessOf(openStore({ contentPath: unreadablePath, namespace }), namespace);
  },
});

describe('ContainerdStore', () => {
  const stores: ContainerdStore[] = [];

  function store(options: OpenOptions = {}, warnings?: string[]): ContainerdStore {
    const opened = openStore(options, warnings);
    stores.push(opened);
    return opened;
  }

  afterEach(async () => {
    for (const opened of stores.splice(0)) await opened.close();
  });

  it('reads the files where containerd says that they are', async () => {
    const harness = harnessOf(store());
    const { digest } = await addBlob(harness, randomBytes(1000));
    const byFiles = await harness.store.stat(digest);
    expect(byFiles).toEqual(await store({ contentPath: node.contentPath }).stat(digest));
    const bySocket = await store({ contentPath: unreadablePath }).stat(digest);
    expect(bySocket?.sizeBytes).toBe(1000);
    expect(bySocket?.fingerprint).not.toBe(byFiles?.fingerprint);
  });

  it('says once that it reads through the socket', async () => {
    const warnings: string[] = [];
    const slow = store({ contentPath: unreadablePath }, warnings);
    const { digest } = await addBlob(harnessOf(slow), randomBytes(10));
    await slow.stat(digest);
    await slow.stat(digest);
    expect(warnings).toEqual(['Reading blobs through the socket of containerd, slowly']);
  });

  it('does not see the names of another namespace', async () => {
    const elsewhere = fillerOf('elsewhere');
    const name = 'registry.test/elsewhere:1';
    const target = await addManifest({
      addBlob: async (bytes) => {
        await elsewhere.addBlob(bytes);
      },
    });
    await elsewhere.addImage(name, { ...target, size: target.sizeBytes });
    expect(await store().resolve(name)).toBeUndefined();
    expect(await nameList(store())).not.toContain(name);
    const other = store({ namespace: 'elsewhere' });
    expect(await other.resolve(name)).toMatchObject({ name, ...target });
    expect(await nameList(other)).toEqual([name]);
    const bySocket = store({ contentPath: unreadablePath });
    expect(await bySocket.stat(target.digest)).toBeUndefined();
  });

  it('gives names with digests to those who ask for them, and still nothing odd', async () => {
    const harness = harnessOf(store({ namespace: 'pinned' }), 'pinned');
    const target = await addManifest(harness);
    await harness.addOddRecords(target);
    const pinned = `registry.test/odd@${target.digest}`;
    expect(await nameList(harness.store)).toEqual([]);
    const found = await collect(harness.store.names({ withDigests: true }));
    expect(found.map(({ name, digest }) => [name, digest])).toEqual([[pinned, target.digest]]);
  });

  it('does not take garbage for an image', async () => {
    const harness = harnessOf(store());
    const target = await addManifest(harness);
    const record = { digest: target.digest, size: target.sizeBytes, mediaType: 'text/plain' };
    await fillerOf('k8s.io').addImage('registry.test/text:1', record);
    expect(await harness.store.resolve('registry.test/text:1')).toBeUndefined();
  });

  it('reads a blob of many messages through the socket', async () => {
    const slow = store({ contentPath: unreadablePath });
    const { digest, bytes } = await addBlob(harnessOf(slow), randomBytes(12 * 1024 * 1024 + 1));
    const blob = await slow.open(digest);
    const half = Buffer.alloc(Math.floor(bytes.length / 2));
    expect(await blob!.read(half, 0)).toBe(half.length);
    expect(await digestFrom(blob!, 300_000, half)).toBe(digest);
    await blob!.close();
  });

  it('ends a call that containerd does not answer in time', async () => {
    const impatient = store({ callTimeoutMs: 200, listTimeoutMs: 200 });
    const known = harnessOf(impatient);
    const { digest } = await addBlob(known, randomBytes(10));
    expect(await impatient.stat(digest)).toBeDefined();
    await node.kill('SIGSTOP');
    try {
      expect(await impatient.ready()).toBe(false);
      await expect(impatient.resolve('registry.test/a:1')).rejects.toThrow(StoreUnavailableError);
      await expect(nameList(impatient)).rejects.toThrow(StoreUnavailableError);
      expect(await impatient.stat(digest)).toBeDefined();
      const slow = store({ contentPath: unreadablePath, callTimeoutMs: 200, listTimeoutMs: 200 });
      await expect(slow.stat(digest)).rejects.toThrow(StoreUnavailableError);
      await expect(collect(slow.blobs())).rejects.toThrow(StoreUnavailableError);
    } finally {
      await node.kill('SIGCONT');
    }
  });

  it('ends a call when its signal aborts', async () => {
    const patient = store({ callTimeoutMs: 20_000, listTimeoutMs: 20_000 });
    await patient.ready();
    await node.kill('SIGSTOP');
    try {
      const reason = new Error('no longer wanted');
      const controller = new AbortController();
      const { signal } = controller;
      const calls = [
        patient.resolve('registry.test/a:1', { signal }),
        collect(patient.names({ signal })),
        patient.abortIngest(digestOf(Buffer.from('x')), { signal }),
        collect(store({ contentPath: unreadablePath }).blobs({ signal })),
      ];
      controller.abort(reason);
      for (const call of calls) await expect(call).rejects.toBe(reason);
    } finally {
      await node.kill('SIGCONT');
    }
  });

  it(
    'serves blobs while containerd is dead, and everything again when it is back',
    async () => {
      const byFiles = store();
      const bySocket = store({ contentPath: unreadablePath });
      const harness = harnessOf(byFiles);
      const target = await addManifest(harness);
      await harness.addName(keptName, target);
      expect(await byFiles.resolve(keptName)).toBeDefined();
      expect(await bySocket.resolve(keptName)).toBeDefined();

      await node.kill('SIGKILL');
      expect(await byFiles.stat(target.digest)).toMatchObject({ sizeBytes: target.sizeBytes });
      const blob = await byFiles.open(target.digest);
      expect(await digestFrom(blob!, 1000)).toBe(target.digest);
      await blob!.close();
      expect((await collect(byFiles.blobs())).length).toBeGreaterThan(0);
      for (const dead of [byFiles, bySocket]) {
        await expect(dead.resolve(keptName)).rejects.toThrow(StoreUnavailableError);
        await expect(nameList(dead)).rejects.toThrow(StoreUnavailableError);
        await expect(dead.abortIngest(target.digest)).rejects.toThrow(StoreUnavailableError);
        expect(await dead.ready()).toBe(false);
      }
      await expect(bySocket.stat(target.digest)).rejects.toThrow(StoreUnavailableError);
      await expect(bySocket.open(target.digest)).rejects.toThrow(StoreUnavailableError);
      await expect(store().stat(target.digest)).rejects.toThrow(StoreUnavailableError);

      await node.restart();
      for (const alive of [byFiles, bySocket]) {
        await waitFor(() => alive.ready(), { what: 'a new connection', timeoutMs: 5000 });
        expect(await alive.resolve(keptName)).toMatchObject(target);
        expect(await nameList(alive)).toContain(keptName);
        const again = await alive.open(target.digest);
        expect(await digestFrom(again!, 1000)).toBe(target.digest);
        await again!.close();
      }
    },
    startTimeoutMs,
  );

  it('goes on through the socket when the directory goes away, and comes back to it', async () => {
    const link = join(scope().directory, 'content');
    const either = store({ contentPath: link });
    const { digest } = await addBlob(harnessOf(either), randomBytes(100));
    const throughSocket = await either.stat(digest);
    await symlink(node.contentPath, link);
    const fromFile = await either.stat(digest);
    await rm(link);
    expect(await either.stat(digest)).toEqual(throughSocket);
    expect(fromFile).toEqual(await store().stat(digest));
    expect(fromFile).not.toEqual(throughSocket);
  });

  it('says that a socket nobody listens on is unavailable', async () => {
    const nowhere = store({ socketPath: join(scope().socketDirectory, 'none.sock') });
    await expect(nowhere.stat(digestOf(Buffer.from('x')))).rejects.toThrow(StoreUnavailableError);
    await expect(collect(nowhere.blobs())).rejects.toThrow(StoreUnavailableError);
    expect(await nowhere.ready()).toBe(false);
  });
});
