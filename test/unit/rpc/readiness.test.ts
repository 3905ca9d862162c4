import { Client, credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { AgentClient } from '../../../src/rpc/agent-client.ts';
import { Readiness } from '../../../src/rpc/readiness.ts';
import { freePort } from '../../support/ports.ts';

const cleanups: (() => void)[] = [];
let port: number;

beforeEach(async () => {
  port = await freePort();
});

afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

async function startServer(): Promise<void> {
  const server = new Server();
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error) => {
      if (error === null) resolve();
      else reject(error);
    });
  });
  cleanups.push(() => server.forceShutdown());
}

function agentClient(): AgentClient {
  const client = new AgentClient(
    { target: `127.0.0.1:${port}`, windowBytes: 65_536, name: 'a' },
    { credentials: credentials.createInsecure() },
  );
  cleanups.push(() => client.close());
  return client;
}

it('AgentClient.connect connects to an agent that listens', async () => {
  await startServer();
  const client = agentClient();
  expect(client.isFailing).toBe(false);
  expect(await client.connect()).toBe(true);
  expect(client.isFailing).toBe(false);
});

it('AgentClient.connect waits but a moment for one that does not, and finds it when it does', async () => {
  const client = agentClient();
  expect(await client.connect()).toBe(false);
  expect(client.isFailing).toBe(true);
  await startServer();
  // A try that had begun before it listened may be the last one of the first moment.
  expect((await client.connect()) || (await client.connect())).toBe(true);
  expect(client.isFailing).toBe(false);
});

it('Readiness waits once for all who ask at the same time', async () => {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  cleanups.push(() => client.close());
  let waits = 0;
  const readiness = new Readiness({
    getChannel: () => client.getChannel(),
    waitForReady: (deadline, callback) => {
      waits += 1;
      client.waitForReady(deadline, callback);
    },
  });
  const all = await Promise.all(Array.from({ length: 500 }, () => readiness.wait()));
  expect(new Set(all)).toEqual(new Set([false]));
  expect(waits).toBe(1);
  await readiness.wait();
  expect(waits).toBe(2);
});

it('Readiness is over soon when the client has been closed', async () => {
  const client = agentClient();
  const connected = client.connect();
  client.close();
  expect(await connected).toBe(false);
  expect(await client.connect()).toBe(false);
});
