import { describe, expect, it } from 'vitest';
import { create } from '@bufbuild/protobuf';
import { digestOf } from '../../../src/oci/digest.ts';
import type { BlobConnection } from '../../../src/rpc/blob-connection.ts';
import { BlobRead, OlderAgentError } from '../../../src/rpc/blob-read.ts';
import { BlobAnswerSchema } from '../../../src/rpc/gen/salvor/agent/v1/agent_pb.ts';

const digest = digestOf(Buffer.from('a blob'));
const whole = { digest, offsetBytes: 0, lengthBytes: 0, node: 'node-1' };

/** A connection whose other end says what it is told to. */
class Scripted {
  isDestroyed = false;
  sent = 0;
  readonly #answer: { sizeBytes?: bigint; code?: number; message?: string } | undefined;
  readonly #pieces: (Buffer | Error)[];

  constructor(
    answer: { sizeBytes?: bigint; code?: number; message?: string } | undefined,
    pieces: (Buffer | Error)[] = [],
  ) {
    this.#answer = answer;
    this.#pieces = pieces;
  }

  send(): void {
    this.sent += 1;
  }

  async answer() {
    return this.#answer && create(BlobAnswerSchema, this.#answer);
  }

  async next(): Promise<Buffer | undefined> {
    const piece = this.#pieces.shift();
    if (piece instanceof Error) throw piece;
    return piece;
  }

  destroy(): void {
    this.isDestroyed = true;
  }
}

/** Reads over connections that are there in a queue each. */
function read({ used = [], fresh = [] }: { used?: Scripted[]; fresh?: (Scripted | 'older')[] }) {
  const kept: unknown[] = [];
  const blobRead = new BlobRead(
    whole,
    {},
    {
      take: () => used.shift() as unknown as BlobConnection | undefined,
      dial: async (onDialled) => {
        const connection = fresh.shift();
        if (connection === undefined) throw new Error('connect ECONNREFUSED');
        if (connection === 'older') return false;
        onDialled(connection as unknown as BlobConnection);
        return true;
      },
      keep: (connection) => void kept.push(connection),
    },
  );
  return { blobRead, kept };
}

async function bytesOf(blobRead: BlobRead): Promise<string> {
  let text = '';
  for await (const { data } of blobRead) text += data.toString();
  return text;
}

const three = { sizeBytes: 3n };

describe('BlobRead', () => {
  it('keeps a connection as soon as all bytes are there, though nobody asks for more', async () => {
    const connection = new Scripted(three, [Buffer.from('ab'), Buffer.from('c')]);
    const { blobRead, kept } = read({ fresh: [connection] });
    const frames = blobRead[Symbol.asyncIterator]();
    expect((await frames.next()).value).toMatchObject({ sizeBytes: 3 });
    expect(kept).toEqual([]);
    await frames.next();
    expect(kept).toEqual([connection]);
    blobRead.cancel();
    expect(connection.isDestroyed).toBe(false);
  });

  it('asks again over another connection where the agent has ended one that was used', async () => {
    const dead = [new Scripted(undefined), new Scripted(undefined)];
    const connection = new Scripted(three, [Buffer.from('abc')]);
    const { blobRead, kept } = read({ used: [...dead], fresh: [connection] });
    expect(await bytesOf(blobRead)).toBe('abc');
    expect(dead.map(({ isDestroyed }) => isDestroyed)).toEqual([true, true]);
    expect(kept).toEqual([connection]);
  });

  it.each([
    ['ends a new one without a word', new Scripted(undefined), 'the agent ended the connection'],
    ['breaks off', new Scripted(three, [Buffer.from('ab')]), 'it broke off 1 bytes before the end'],
    ['resets', new Scripted(three, [new Error('read ECONNRESET')]), 'read ECONNRESET'],
    [
      'says too much',
      new Scripted(three, [Buffer.from('abcd')]),
      'it sent more than it was asked for',
    ],
  ])('fails where the agent %s', async (_, connection, reason) => {
    const { blobRead, kept } = read({ fresh: [connection] });
    await expect(bytesOf(blobRead)).rejects.toMatchObject({
      kind: 'unavailable',
      message: `Cannot read ${digest} from node-1: ${reason}`,
    });
    expect([kept, connection.isDestroyed]).toEqual([[], true]);
  });

  it('fails as the agent says, and keeps the connection', async () => {
    const connection = new Scripted({ code: 5, message: 'not held' });
    const { blobRead, kept } = read({ fresh: [connection] });
    await expect(bytesOf(blobRead)).rejects.toMatchObject({
      kind: 'not_held',
      message: `Cannot read ${digest} from node-1: not held`,
    });
    expect([kept, connection.isDestroyed]).toEqual([[connection], false]);
  });

  it('fails where there is no way to the agent, or another one', async () => {
    await expect(bytesOf(read({}).blobRead)).rejects.toMatchObject({ kind: 'unavailable' });
    await expect(bytesOf(read({ fresh: ['older'] }).blobRead)).rejects.toThrow(OlderAgentError);
  });

  it('asks for nothing when it was cancelled before', async () => {
    const connection = new Scripted(three);
    const { blobRead } = read({ fresh: [connection] });
    blobRead.cancel();
    await expect(bytesOf(blobRead)).rejects.toMatchObject({ kind: 'cancelled' });
    expect(connection.sent).toBe(0);
  });
});
