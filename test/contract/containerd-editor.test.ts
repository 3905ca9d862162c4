import { randomBytes } from 'node:crypto';
import { access } from 'node:fs/promises';

import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { ContainerdClient } from '../../src/agent/containerd/containerd-client.ts';
import { ContainerdConnection } from '../../src/agent/containerd/containerd-connection.ts';
import { ContainerdEditor } from '../../src/agent/containerd/containerd-editor.ts';
import { ContainerdLeases } from '../../src/agent/containerd/containerd-leases.ts';
import { IngestBusyError, WrongContentError } from '../../src/agent/containerd/content-write.ts';
import { StoreUnavailableError } from '../../src/agent/store.ts';
import { digestOf, type Digest } from '../../src/oci/digest.ts';
import type { Envelope } from '../../src/rpc/gen/containerd/services/events/v1/events_pb.ts';
import { ContainerdFiller } from '../support/containerd-filler.ts';
import { startContainerd, type ContainerdNode } from '../support/containerd-node.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const startTimeoutMs = 60_000;
const mib = 1024 * 1024;
const rootLabel = 'containerd.io/gc.root';

const scope = suiteScope('containerd-editor');
let node: ContainerdNode;
let filler: ContainerdFiller;
let connection: ContainerdConnection;
let client: ContainerdClient;
let editor: ContainerdEditor;
let leases: ContainerdLeases;

beforeAll(async () => {
  node = await startContainerd(scope(), { name: 'editor' });
  filler = new ContainerdFiller(node.socketPath);
  scope().defer(() => filler.close());
}, startTimeoutMs);

beforeEach(() => {
  connection = new ContainerdConnection({ socketPath: node.socketPath });
  client = new ContainerdClient(connection);
  editor = new ContainerdEditor(connection);
  leases = new ContainerdLeases(connection);
});

afterEach(() => connection.close());

async function addBlob(): Promise<Digest> {
  return (await filler.addBlob(randomBytes(100))) as Digest;
}

/** The bytes from an offset, in pieces. */
function pieces(
  bytes: Uint8Array,
  sizeBytes = mib,
): (offset: number) => AsyncGenerator<Uint8Array> {
  return async function* (offset) {
    for (let start = offset; start < bytes.byteLength; start += sizeBytes) {
      yield bytes.subarray(start, start + sizeBytes);
    }
  };
}

async function collectGarbage(): Promise<void> {
  await leases.create('garbage', { flat: true });
  await leases.delete('garbage', { sync: true });
}

async function isOnDisk(digest: Digest): Promise<boolean> {
  return access(node.blobPath(digest)).then(
    () => true,
    () => false,
  );
}

describe('ContainerdEditor.updateLabels', () => {
  it('sets and removes labels and leaves the others alone', async () => {
    const digest = await addBlob();
    expect(await editor.labels(digest)).toEqual({ [rootLabel]: 'test' });
    const key = 'containerd.io/gc.ref.content.l.0';
    expect(await editor.updateLabels(digest, { set: { [key]: 'one', other: 'two' } })).toBe(true);
    expect(await editor.labels(digest)).toEqual({
      [rootLabel]: 'test',
      [key]: 'one',
      other: 'two',
    });
    await editor.updateLabels(digest, { set: { other: 'three' }, remove: [key, 'never-set'] });
    expect(await editor.labels(digest)).toEqual({ [rootLabel]: 'test', other: 'three' });
  });

  it('says that a blob is not there', async () => {
    const digest = digestOf(randomBytes(8));
    expect(await editor.labels(digest)).toBeUndefined();
    expect(await editor.updateLabels(digest, { set: { a: 'b' } })).toBe(false);
    expect(await editor.updateLabels(digest, {})).toBe(false);
    expect(await editor.deleteContent(digest)).toBe(false);
  });

  it('lets garbage collection take what no label refers to any more', async () => {
    const parent = await addBlob();
    const child = await addBlob();
    const key = 'containerd.io/gc.ref.content.l.0';
    await editor.updateLabels(parent, { set: { [key]: child } });
    await editor.updateLabels(child, { remove: [rootLabel] });
    await collectGarbage();
    expect(await isOnDisk(child)).toBe(true);
    await editor.updateLabels(parent, { remove: [key] });
    await collectGarbage();
    expect(await isOnDisk(child)).toBe(false);
  });
});

describe('ContainerdEditor.deleteContent', () => {
  it('takes the blob away', async () => {
    const digest = await addBlob();
    expect(await editor.deleteContent(digest)).toBe(true);
    expect(await editor.labels(digest)).toBeUndefined();
    await collectGarbage();
    expect(await isOnDisk(digest)).toBe(false);
  });
});

describe('ContainerdEditor.write', () => {
  const labels = { [rootLabel]: 'test' };

  it('writes a blob of many messages, labels included', async () => {
    const bytes = randomBytes(11 * mib + 1);
    const digest = digestOf(bytes);
    const write = { ref: `salvor-${digest}`, digest, sizeBytes: bytes.byteLength, labels };
    // One piece is larger than a message may be.
    expect(await editor.write(write, pieces(bytes, 9 * mib))).toBe('written');
    await node.verifyBlob(digest);
    expect(await editor.labels(digest)).toEqual(labels);
    expect(await client.ingests({})).toEqual([]);
    const again = editor.write(write, () => {
      throw new Error('Nobody may ask for the bytes of what is there');
    });
    expect(await again).toBe('present');
  });

  it('writes a blob without bytes', async () => {
    const digest = digestOf(Buffer.alloc(0));
    const write = { ref: 'salvor-empty', digest, sizeBytes: 0, labels };
    expect(await editor.write(write, pieces(Buffer.alloc(0)))).toBe('written');
    expect(await editor.labels(digest)).toEqual(labels);
  });

  it('goes on where a broken write ended', async () => {
    const bytes = randomBytes(3 * mib);
    const digest = digestOf(bytes);
    const write = { ref: `salvor-${digest}`, digest, sizeBytes: bytes.byteLength, labels };
    const broken = editor.write(write, async function* () {
      yield bytes.subarray(0, mib);
      throw new Error('The source is gone');
    });
    await expect(broken).rejects.toThrow('The source is gone');
    const offsets: number[] = [];
    const again = await editor.write(write, (offset) => {
      offsets.push(offset);
      return pieces(bytes)(offset);
    });
    expect(again).toBe('written');
    expect(offsets).toEqual([mib]);
    await node.verifyBlob(digest);
  });

  it('keeps what it has of bytes that end early, and says so', async () => {
    const bytes = randomBytes(1000);
    const digest = digestOf(bytes);
    const write = { ref: `salvor-${digest}`, digest, sizeBytes: 1000 };
    const short = editor.write(write, pieces(bytes.subarray(0, 400)));
    await expect(short).rejects.toThrow(/the bytes ended at 400 of 1000$/);
    expect(await client.ingests({})).toMatchObject([{ ref: write.ref, offset: 400n }]);
    await client.abortIngest(write.ref, {});
  });

  it('throws away wrong bytes', async () => {
    const bytes = randomBytes(1000);
    const digest = digestOf(bytes);
    const write = { ref: `salvor-${digest}`, digest, sizeBytes: 1000 };
    const wrong = editor.write(write, pieces(randomBytes(1000)));
    await expect(wrong).rejects.toThrow(WrongContentError);
    expect(await client.ingests({})).toEqual([]);
    const long = editor.write(write, pieces(randomBytes(1001)));
    await expect(long).rejects.toThrow(/more than 1000 bytes$/);
    expect(await client.ingests({})).toEqual([]);
    expect(await editor.labels(digest)).toBeUndefined();
  });

  it('leaves a write of somebody else alone', async () => {
    const bytes = randomBytes(1000);
    const digest = digestOf(bytes);
    const ref = `layer-${digest}`;
    const other = await filler.beginWrite(digest, { ref, data: bytes });
    const ours = editor.write({ ref, digest, sizeBytes: 1000 }, pieces(bytes));
    await expect(ours).rejects.toThrow(IngestBusyError);
    await other.commit();
    await node.verifyBlob(digest);
  });

  it('stops when its signal aborts', async () => {
    const bytes = randomBytes(2000);
    const digest = digestOf(bytes);
    const write = { ref: `salvor-${digest}`, digest, sizeBytes: 2000 };
    const controller = new AbortController();
    const reason = new Error('no longer wanted');
    const stopped = editor.write(
      write,
      async function* () {
        yield bytes.subarray(0, 1000);
        controller.abort(reason);
        yield bytes.subarray(1000);
      },
      { signal: controller.signal },
    );
    await expect(stopped).rejects.toBe(reason);
    await eventually(() => editor.write(write, pieces(bytes)));
  });

  it('belongs to its lease', async () => {
    const bytes = randomBytes(1000);
    const digest = digestOf(bytes);
    const leaseId = 'write-lease';
    await leases.create(leaseId, { flat: true });
    const write = { ref: `salvor-${digest}`, digest, sizeBytes: 1000, leaseId };
    await editor.write(write, pieces(bytes));
    expect(await leases.listResources(leaseId)).toMatchObject([{ type: 'content', id: digest }]);
    await collectGarbage();
    expect(await isOnDisk(digest)).toBe(true);
    await leases.delete(leaseId, { sync: true });
    expect(await isOnDisk(digest)).toBe(false);
  });

  it('gives up when containerd falls silent', async () => {
    const digest = digestOf(randomBytes(8));
    await client.version({});
    await node.kill('SIGSTOP');
    try {
      const write = editor.write({ ref: 'silent', digest, sizeBytes: 8 }, pieces(Buffer.alloc(8)), {
        timeoutMs: 200,
      });
      await expect(write).rejects.toThrow(StoreUnavailableError);
      await expect(write).rejects.toThrow(/no answer within 200 ms$/);
    } finally {
      await node.kill('SIGCONT');
    }
  });
});

describe('ContainerdLeases', () => {
  it('create tells a new lease from one that is there', async () => {
    const expiresAtMs = Date.now() + 3_600_000;
    const terms = { flat: true, expiresAtMs, labels: { 'salvor.dev/kept': 'a' } };
    expect(await leases.create('one', terms)).toBe(true);
    expect(await leases.create('one', { flat: false })).toBe(false);
    const [lease, ...others] = await leases.list({ filters: ['labels."salvor.dev/kept"'] });
    expect(others).toEqual([]);
    expect(lease).toMatchObject({
      id: 'one',
      labels: {
        'salvor.dev/kept': 'a',
        'containerd.io/gc.expire': new Date(expiresAtMs).toISOString(),
      },
    });
    expect(Object.keys(lease!.labels)).toContain('containerd.io/gc.flat');
    expect(await leases.delete('one')).toBe(true);
    expect(await leases.delete('one')).toBe(false);
  });

  it('addResource holds a blob until deleteResource lets go', async () => {
    const digest = await addBlob();
    const resource = { type: 'content', id: digest };
    await leases.create('holds', { flat: true });
    expect(await leases.addResource('holds', resource)).toBe(true);
    expect(await leases.addResource('holds', resource)).toBe(true);
    await editor.updateLabels(digest, { remove: [rootLabel] });
    await collectGarbage();
    expect(await isOnDisk(digest)).toBe(true);
    expect(await leases.deleteResource('holds', resource)).toBe(true);
    expect(await leases.listResources('holds')).toEqual([]);
    await collectGarbage();
    expect(await isOnDisk(digest)).toBe(false);
    await leases.delete('holds');
  });

  it('says that a lease is not there', async () => {
    const resource = { type: 'content', id: digestOf(Buffer.from('x')) };
    expect(await leases.addResource('nowhere', resource)).toBe(false);
    expect(await leases.deleteResource('nowhere', resource)).toBe(false);
    expect(await leases.listResources('nowhere')).toBeUndefined();
  });
});

describe('ContainerdClient', () => {
  it('containers names the images in use', async () => {
    expect(await client.containers({})).toEqual([]);
  });

  it('content and images keep to their filters', async () => {
    const digest = await addBlob();
    await editor.updateLabels(digest, { set: { 'salvor.dev/test': 'yes' } });
    await filler.addImage('registry.test/filter:1', { mediaType: 'a/b', digest, size: 100 });
    const found: string[] = [];
    const listed = client.content({ filters: ['labels."salvor.dev/test"'] });
    for await (const info of listed) found.push(info.digest);
    expect(found).toEqual([digest]);
    const images = await client.images({ filters: [`target.digest==${digest}`] });
    expect(images.map(({ name }) => name)).toEqual(['registry.test/filter:1']);
    await filler.removeImage('registry.test/filter:1');
  });

  it('events tells what happens to images, until its signal aborts', async () => {
    const controller = new AbortController();
    const events = client.events(['/images/'], { signal: controller.signal });
    const first = events.next();
    expect(await firstTopic(first)).toMatch(/^\/images\/(create|delete)$/);
    const reason = new Error('enough');
    controller.abort(reason);
    await expect(events.next()).rejects.toBe(reason);
  });
});

/** Nothing tells when a subscription has begun: things happen until one is heard of. */
async function firstTopic(event: Promise<IteratorResult<Envelope>>): Promise<string> {
  const target = { mediaType: 'a/b', digest: await addBlob(), size: 100 };
  let topic: string | undefined;
  void event.then(({ value }) => (topic = (value as Envelope).topic));
  return waitFor(
    async () => {
      await filler.addImage('registry.test/event:1', target);
      await filler.removeImage('registry.test/event:1');
      return topic;
    },
    { what: 'an event' },
  );
}

/** containerd frees the ref of a broken write a moment after its client has left. */
async function eventually<T>(write: () => Promise<T>): Promise<T> {
  return waitFor(
    () =>
      write().catch((error: unknown) => {
        if (error instanceof IngestBusyError) return undefined;
        throw error;
      }),
    { what: 'a write that nobody holds' },
  );
}
