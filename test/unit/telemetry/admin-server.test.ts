import { connect } from 'node:net';
import { once } from 'node:events';
import { networkInterfaces } from 'node:os';

import { afterEach, describe, expect, test } from 'vitest';

import { AdminServer } from '../../../src/telemetry/admin-server.ts';
import type { ReadyCheck } from '../../../src/telemetry/admin-server.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { waitFor } from '../../support/wait.ts';

let server: AdminServer | undefined;

afterEach(async () => {
  await server?.close();
});

async function start(
  checks: Record<string, ReadyCheck> = {},
  options: { readonly metrics?: () => Promise<string>; readonly checkTimeoutMs?: number } = {},
): Promise<number> {
  const { metrics = () => Promise.resolve('a 1\n'), checkTimeoutMs = 1000 } = options;
  server = new AdminServer(
    { host: '127.0.0.1', port: 0, checkTimeoutMs },
    { metrics: { contentType: 'text/plain; version=0.0.4', metrics }, checks, log: silentLogger },
  );
  return await server.start();
}

async function ask(port: number, path: string, method = 'GET') {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { method });
  return { status: response.status, headers: response.headers, body: await response.text() };
}

describe('AdminServer', () => {
  test('AdminServer answers /metrics with what the registry of metrics has', async () => {
    const answer = await ask(await start(), '/metrics?x=1');
    expect(answer).toMatchObject({ status: 200, body: 'a 1\n' });
    expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4');
  });

  test('AdminServer shows pages to this machine alone, and metrics to others as well', async () => {
    const [address] = Object.values(networkInterfaces())
      .flatMap((addresses) => addresses ?? [])
      .filter(({ family, internal }) => family === 'IPv4' && !internal);
    server = new AdminServer(
      { host: '0.0.0.0', port: 0 },
      {
        metrics: { contentType: 'text/plain', metrics: () => Promise.resolve('a 1\n') },
        checks: {},
        pages: { '/status': () => ({ pulls: 1 }) },
        log: silentLogger,
      },
    );
    const port = await server.start();
    expect(await ask(port, '/status')).toMatchObject({ status: 200 });
    // 127.0.0.2 at one end and 127.0.0.1 at the other stand for two machines.
    const foreign = async (path: string): Promise<string> => {
      const socket = connect({ host: '127.0.0.1', port, localAddress: '127.0.0.2' });
      socket.end(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
      const chunks: Buffer[] = [];
      for await (const chunk of socket) chunks.push(chunk as Buffer);
      return Buffer.concat(chunks).toString();
    };
    expect(await foreign('/status')).toMatch(/^HTTP\/1.1 403 /);
    expect(await foreign('/metrics')).toMatch(/^HTTP\/1.1 200 .*a 1\n$/s);
    if (address !== undefined) {
      const own = await fetch(`http://${address.address}:${port}/status`);
      expect(await own.json()).toEqual({ pulls: 1 });
    }
  });

  test('AdminServer answers /healthz while it runs, whatever the checks say', async () => {
    const port = await start({ upstream: () => Promise.resolve(false) });
    expect(await ask(port, '/healthz')).toMatchObject({ status: 200, body: 'ok\n' });
  });

  test('AdminServer answers /readyz with 200 when every check holds', async () => {
    const port = await start({ agent: () => Promise.resolve(true) });
    const { status, body } = await ask(port, '/readyz');
    expect([status, JSON.parse(body)]).toEqual([200, { ready: true, checks: { agent: 'ok' } }]);
  });

  test('AdminServer answers /readyz with 503 and the reason of each check', async () => {
    const port = await start(
      {
        good: () => Promise.resolve(true),
        bad: () => Promise.resolve(false),
        reasoned: () => Promise.resolve('no socket'),
        thrown: () => Promise.reject(new Error('refused')),
        silent: () => new Promise(() => undefined),
      },
      { checkTimeoutMs: 20 },
    );
    const { status, body } = await ask(port, '/readyz');
    expect([status, JSON.parse(body)]).toEqual([
      503,
      {
        ready: false,
        checks: {
          good: 'ok',
          bad: 'not ready',
          reasoned: 'no socket',
          thrown: 'refused',
          silent: 'no answer in time',
        },
      },
    ]);
  });

  test('AdminServer answers everything else with 404, other methods with 405', async () => {
    const port = await start();
    expect((await ask(port, '/')).status).toBe(404);
    expect((await ask(port, '/metrics/')).status).toBe(404);
    const answer = await ask(port, '/metrics', 'POST');
    expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'GET, HEAD']);
  });

  test('AdminServer answers HEAD without a body', async () => {
    const answer = await ask(await start(), '/healthz', 'HEAD');
    expect([answer.status, answer.headers.get('content-length'), answer.body]).toEqual([
      200,
      '3',
      '',
    ]);
  });

  test('AdminServer answers 500 when metrics cannot be had, and goes on', async () => {
    const port = await start({}, { metrics: () => Promise.reject(new Error('secret')) });
    expect(await ask(port, '/metrics')).toMatchObject({ status: 500, body: 'internal error\n' });
    expect((await ask(port, '/healthz')).status).toBe(200);
  });

  test('AdminServer refuses large headers', async () => {
    const port = await start();
    const headers = { 'x-large': 'x'.repeat(16 * 1024) };
    const response = await fetch(`http://127.0.0.1:${port}/healthz`, { headers });
    await response.arrayBuffer();
    expect(response.status).toBe(431);
  });

  test('AdminServer answers probes while somebody else holds connections', async () => {
    const port = await start();
    const sockets = Array.from({ length: 200 }, () =>
      connect({ port, host: '127.0.0.1', localAddress: '127.0.0.2' }),
    );
    for (const socket of sockets) socket.on('error', () => undefined).resume();
    await Promise.all(sockets.map((socket) => once(socket, 'connect')));
    const open = (): number => sockets.filter(({ destroyed }) => !destroyed).length;
    await waitFor(() => open() === 64, { what: 'all but 64 to be ended' });

    expect((await ask(port, '/healthz')).status).toBe(200);
    for (const socket of sockets) socket.destroy();
  });

  test('AdminServer.close ends connections that wait for nothing', async () => {
    const port = await start();
    const socket = connect(port, '127.0.0.1');
    await once(socket, 'connect');
    const closed = once(socket, 'close');
    socket.resume();
    await server?.close();
    await closed;
    await expect(ask(port, '/healthz')).rejects.toThrow();
  });

  test('AdminServer.start throws when the port is taken, and can be closed then', async () => {
    const port = await start();
    const second = new AdminServer(
      { host: '127.0.0.1', port },
      {
        metrics: { contentType: '', metrics: () => Promise.resolve('') },
        checks: {},
        log: silentLogger,
      },
    );
    await expect(second.start()).rejects.toThrow('EADDRINUSE');
    await second.close();
  });
});
