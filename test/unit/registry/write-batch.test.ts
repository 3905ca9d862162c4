import type { ServerResponse } from 'node:http';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { WriteBatch } from '../../../src/registry/write-batch.ts';

const KIB = 1024;

function scene(waitingBytes = 0): { batch: WriteBatch; calls: string[] } {
  const calls: string[] = [];
  const response = {
    writableLength: waitingBytes,
    writableNeedDrain: waitingBytes > 0,
    write: (chunk: Buffer) => calls.push(chunk.toString()),
    socket: { cork: () => calls.push('cork'), uncork: () => calls.push('uncork') },
  };
  return { batch: new WriteBatch(response as unknown as ServerResponse), calls };
}

test('WriteBatch hands over what one turn of the event loop brought, together', async () => {
  const { batch, calls } = scene();
  batch.add(Buffer.from('a'));
  await Promise.resolve();
  batch.add(Buffer.from('b'));
  expect(calls).toEqual([]);
  await nextTurn();
  expect(calls).toEqual(['cork', 'a', 'b', 'uncork']);
  batch.add(Buffer.from('c'));
  batch.flush();
  await nextTurn();
  expect(calls.slice(4)).toEqual(['cork', 'c', 'uncork']);
});

test('WriteBatch counts what waits at the socket too', () => {
  const empty = scene().batch;
  empty.add(Buffer.alloc(191 * KIB));
  expect(empty.isFull).toBe(false);
  empty.add(Buffer.alloc(KIB));
  expect(empty.isFull).toBe(true);
  expect(empty.mustDrain).toBe(false);
  const { batch } = scene(191 * KIB);
  expect(batch.isFull).toBe(false);
  batch.add(Buffer.alloc(KIB));
  expect(batch.isFull).toBe(true);
  expect(batch.mustDrain).toBe(true);
});

test('WriteBatch lets less wait for a client that is slow, until it is not', () => {
  const { batch } = scene(63 * KIB);
  batch.noteDrain(201);
  expect(batch.isFull).toBe(false);
  batch.add(Buffer.alloc(KIB));
  expect(batch.isFull).toBe(true);
  batch.noteDrain(200);
  expect(batch.isFull).toBe(false);
  batch.drop();
});

test('WriteBatch forgets what it is told to drop', async () => {
  const { batch, calls } = scene();
  batch.add(Buffer.from('a'));
  batch.drop();
  await nextTurn();
  expect(calls).toEqual([]);
  expect(batch.isFull).toBe(false);
});
