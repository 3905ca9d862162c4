import { once } from 'node:events';
import { Agent, createServer, get, type Server, type ServerResponse } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { limitWaiting } from '../../../src/http/waiting-connections.ts';
import { expectNoLeaks } from '../../support/no-leaks.ts';
import { waitFor } from '../../support/wait.ts';

expectNoLeaks();

const MAX = 4;
let server: Server;
let port: number;
let held: ServerResponse | undefined;
let sockets: Socket[];

beforeEach(async () => {
  sockets = [];
  held = undefined;
  server = createServer((request, response) => {
    if (request.url === '/held') held = response;
    else response.end('ok');
  });
  limitWaiting(server, { max: MAX });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  ({ port } = server.address() as AddressInfo);
});

afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  server.closeAllConnections();
  server.close();
  await once(server, 'close');
});

/** Connections that say this, and nothing more. */
async function silent(count: number, text: string): Promise<Socket[]> {
  const made = Array.from({ length: count }, () => connect(port, '127.0.0.1'));
  sockets.push(...made);
  for (const socket of made) {
    socket.on('error', () => undefined);
    socket.resume();
    await once(socket, 'connect');
    socket.write(text);
  }
  return made;
}

const open = (of: readonly Socket[]): number => of.filter(({ destroyed }) => !destroyed).length;

async function ask(path: string, agent?: Agent): Promise<string> {
  const request = get({ port, host: '127.0.0.1', path, agent: agent ?? new Agent() });
  const [response] = (await once(request, 'response')) as [AsyncIterable<Buffer>];
  const parts: Buffer[] = [];
  for await (const part of response) parts.push(part);
  return Buffer.concat(parts).toString();
}

describe('limitWaiting', () => {
  it.each([
    ['nothing', ''],
    ['half a request', 'GET / HTTP/1.1\r\nHost: a'],
  ])('limitWaiting ends the oldest of too many that send %s', async (_, text) => {
    const made = await silent(20, text);

    await waitFor(() => open(made) === MAX, { what: 'the other 16 to be ended' });
    expect(open(made.slice(-MAX))).toBe(MAX);
    expect(await ask('/')).toBe('ok');
  });

  it('limitWaiting counts a connection again once its request is answered', async () => {
    const made = await silent(20, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n');

    await waitFor(() => open(made) === MAX, { what: 'the other 16 to be ended' });
  });

  it('limitWaiting leaves alone what has a request', async () => {
    const [busy] = await silent(1, 'GET /held HTTP/1.1\r\nHost: a\r\n\r\n');
    await waitFor(() => held !== undefined, { what: 'the request' });

    const made = await silent(20, '');
    await waitFor(() => open(made) === MAX, { what: 'the other 16 to be ended' });

    const data = once(busy!, 'data');
    held?.end('late');
    expect(String((await data)[0])).toContain('late');
  });

  it('limitWaiting leaves alone the second of two requests that came at once', async () => {
    const two = 'GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /held HTTP/1.1\r\nHost: a\r\n\r\n';
    const [busy] = await silent(1, two);
    await waitFor(() => held !== undefined, { what: 'the second request' });

    const made = await silent(20, '');
    await waitFor(() => open(made) === MAX, { what: 'the other 16 to be ended' });

    expect(open([busy!])).toBe(1);
  });
});
