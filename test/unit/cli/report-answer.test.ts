import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';

import { askForReport } from '../../../src/cli/report-answer.ts';
import { loadConfig } from '../../../src/config/load.ts';

const servers: Server[] = [];

afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

/** Asks for a report where this answers; there is no agent's socket. */
async function ask(listener: RequestListener, timeoutMs = 10_000): Promise<unknown> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  const admin = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const flags = { 'agent.admin': admin, 'registry.agentSocket': '/no/such.sock' };
  const config = await loadConfig({ command: 'report', flags });
  const signal = AbortSignal.timeout(20_000);
  return askForReport(`http://${admin}/api/report`, config, { timeoutMs, signal });
}

/** An admin port that has metrics, and answers everything else with a status. */
function adminPort(role: string, status: number): RequestListener {
  return (request, response) => {
    const isMetrics = request.url === '/metrics';
    response.writeHead(isMetrics ? 200 : status);
    response.end(isMetrics ? `salvor_build_info{version="1",role="${role}"} 1\n` : 'no\n');
  };
}

test('askForReport hands on what an agent says', async () => {
  const report = { schema: 1, images: [] };
  expect(await ask((_, response) => response.end(JSON.stringify(report)))).toEqual(report);
});

test.each([
  ['the registry', adminPort('registry', 404), 'that is the registry; agent.admin of this command'],
  ['an old agent', adminPort('agent', 404), 'the agent is too old for reports'],
  ['an agent of another machine', adminPort('agent', 403), 'run this on that node'],
  ['a sick agent', adminPort('agent', 500), 'the agent answers 500'],
  [
    'a web server',
    (_, response) => response.writeHead(404).end('<p>'),
    'what answers there (status 404) is no agent of Salvor',
  ],
  [
    'one with a page for everything',
    (_, response) => response.end('<p>Welcome</p>'),
    'what answers there is no agent of Salvor',
  ],
  [
    'a later agent',
    (_, response) => response.end('{"schema":2}'),
    'its form is 2, not 1: use the program of its version',
  ],
  [
    'one that hangs up',
    (request) => request.socket.destroy(),
    'and nobody answers at /no/such.sock: start `salvor agent` on this node',
  ],
])('askForReport says what is wrong with %s', async (_, listener, reason) => {
  const asked = ask(listener);
  await expect(asked).rejects.toThrow(/^Cannot have a report from 127\.0\.0\.1:\d+: /);
  await expect(asked).rejects.toThrow(reason);
});

test('askForReport waits no longer than it was told, and says so', async () => {
  await expect(ask(() => undefined, 50)).rejects.toThrow(
    'not within 0.05 s, beyond agent.report.memberTimeoutMs',
  );
});
