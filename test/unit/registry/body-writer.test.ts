import { createServer, type Server, type ServerResponse } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { writeBody, writeWholeBody, type SentBody } from '../../../src/registry/body-writer.ts';
import { WrongBytesError } from '../../../src/registry/relay.ts';
import { SourceError } from '../../../src/registry/sources/source.ts';
import { expectNoLeaks } from '../../support/no-leaks.ts';
import { FakeBody } from './fake-body.ts';
import { RawClient } from './raw-client.ts';

const MIB = 1024 * 1024;

expectNoLeaks();

let server: Server | undefined;
let client: RawClient | undefined;

afterEach(async () => {
  client?.close();
  if (server === undefined) return;
  server.closeAllConnections();
  server.close();
  await once(server, 'close');
});

/** Serves one response with `write`; a client has asked for it. */
async function exchange(
  sizeBytes: number,
  write: (response: ServerResponse, signal: AbortSignal) => Promise<SentBody>,
): Promise<{ client: RawClient; sent: Promise<SentBody> }> {
  const sent = Promise.withResolvers<SentBody>();
  server = createServer((_, response) => {
    const gone = new AbortController();
    response.on('close', () => {
      if (!response.writableFinished) gone.abort();
    });
    response.writeHead(200, { 'content-length': sizeBytes });
    write(response, gone.signal).then(sent.resolve, sent.reject);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  client = await RawClient.open((server.address() as AddressInfo).port);
  client.get('/');
  return { client, sent: sent.promise };
}

describe('writeBody', () => {
  it('writeBody sends every chunk and cancels the source at the end', async () => {
    const chunks = [Buffer.alloc(3 * MIB, 1), Buffer.from('x'), Buffer.alloc(MIB, 2)];
    const sizeBytes = 4 * MIB + 1;
    const body = new FakeBody({ sizeBytes, steps: chunks });
    const { client, sent } = await exchange(sizeBytes, (response, signal) =>
      writeBody(response, body, { clientStallMs: 5000, signal }),
    );
    expect((await client.answer()).body.equals(Buffer.concat(chunks))).toBe(true);
    expect(await sent).toEqual({ end: 'complete', bytes: sizeBytes });
    expect(body.cancels).toBe(1);
  });

  it('writeBody takes no more from the source than a slow client takes', async () => {
    const sizeBytes = 256 * MIB;
    const chunk = Buffer.alloc(MIB);
    let taken = 0;
    const chunks = (async function* () {
      for (; taken < 256; taken += 1) yield chunk;
    })();
    const { client, sent } = await exchange(sizeBytes, (response, signal) => {
      // Asked for without being read: what fills up are the kernel's buffers.
      return writeBody(
        response,
        { chunks, cancel: () => undefined },
        { clientStallMs: 300, signal },
      );
    });
    client.socket.pause();
    expect((await sent).end).toBe('client_stalled');
    expect(taken).toBeLessThan(32);
  });

  it('writeBody lets a client go that does not take the end of a body', async () => {
    const body = new FakeBody({ sizeBytes: 64 * MIB, steps: [Buffer.alloc(64 * MIB)] });
    const { client, sent } = await exchange(64 * MIB, (response, signal) =>
      writeBody(response, body, { clientStallMs: 100, signal }),
    );
    client.socket.pause();
    expect(await sent).toMatchObject({ end: 'client_stalled' });
    client.socket.resume();
    await client.until(({ socket }) => socket.destroyed);
  });

  it('writeBody ends with FIN when the source breaks, after all that it has given', async () => {
    const body = new FakeBody({
      sizeBytes: 9 * MIB,
      steps: [Buffer.alloc(8 * MIB, 7), new SourceError('cut', 'no source left')],
    });
    const { client, sent } = await exchange(9 * MIB, (response, signal) =>
      writeBody(response, body, { clientStallMs: 5000, signal }),
    );
    await client.untilEnded();
    expect(client.end).toBe('fin');
    expect(client.received.subarray(client.text.indexOf('\r\n\r\n') + 4).length).toBe(8 * MIB);
    expect(await sent).toMatchObject({ end: 'cut', bytes: 8 * MIB, error: { outcome: 'cut' } });
  });

  it('writeBody bounds the time in which a client may take the rest before the FIN', async () => {
    const calls: string[] = [];
    const socket = {
      cork: () => undefined,
      uncork: () => undefined,
      setTimeout: (ms: number, onTimeout: () => void) => {
        calls.push(`setTimeout ${ms}`);
        onTimeout();
      },
      destroy: () => calls.push('destroy'),
      destroySoon: () => calls.push('destroySoon'),
    };
    const response = { write: () => true, socket } as unknown as ServerResponse;
    const body = new FakeBody({ sizeBytes: 9, steps: [Buffer.from('a'), new Error('broke off')] });
    const options = { clientStallMs: 70, signal: new AbortController().signal };
    expect(await writeBody(response, body, options)).toMatchObject({ end: 'cut', bytes: 1 });
    expect(calls).toEqual(['setTimeout 70', 'destroy', 'destroySoon']);
  });

  it('writeBody ends with RST when what it sent is wrong', async () => {
    const body = new FakeBody({
      sizeBytes: MIB,
      steps: [Buffer.from('poison'), new WrongBytesError('wrong')],
    });
    const { client, sent } = await exchange(MIB, (response, signal) =>
      writeBody(response, body, { clientStallMs: 5000, signal }),
    );
    await client.untilEnded();
    expect(client.end).toBe('rst');
    expect(await sent).toMatchObject({ end: 'wrong_bytes' });
  });

  it('writeBody says that the client has gone, whatever the source then does', async () => {
    const body = new FakeBody({ sizeBytes: MIB });
    const { client, sent } = await exchange(MIB, (response, signal) => {
      signal.addEventListener('abort', () => body.cancel());
      return writeBody(response, body, { clientStallMs: 5000, signal });
    });
    body.push(Buffer.from('abc'));
    await client.until(({ text }) => text.endsWith('abc'));
    client.close();
    expect(await sent).toEqual({ end: 'client_gone', bytes: 3 });
    expect(body.cancels).toBeGreaterThan(0);
  });
});

describe('writeWholeBody', () => {
  it('writeWholeBody sends a body and says so when the client has it', async () => {
    const bytes = Buffer.alloc(4 * MIB, 3);
    const { client, sent } = await exchange(bytes.length, (response, signal) =>
      writeWholeBody(response, bytes, { clientStallMs: 5000, signal }),
    );
    expect((await client.answer()).body.equals(bytes)).toBe(true);
    expect(await sent).toEqual({ end: 'complete', bytes: bytes.length });
  });

  it('writeWholeBody says when the client leaves before the end', async () => {
    const bytes = Buffer.alloc(64 * MIB);
    const { client, sent } = await exchange(bytes.length, (response, signal) =>
      writeWholeBody(response, bytes, { clientStallMs: 5000, signal }),
    );
    await client.until(({ received }) => received.length > 0);
    client.close();
    expect(await sent).toMatchObject({ end: 'client_gone' });
  });
});
