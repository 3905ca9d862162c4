import { credentials } from '@grpc/grpc-js';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { AgentPool } from '../../../src/rpc/agent-pool.ts';

let pool: AgentPool;

beforeEach(() => {
  pool = new AgentPool(
    { windowBytes: 65_536, maxClients: 2 },
    { credentials: credentials.createInsecure() },
  );
});

afterEach(() => {
  pool.close();
});

const client = (name: string) => pool.client(`${name}.test:1`, name);

it('AgentPool keeps one client for each address, the newest ones', () => {
  const a = client('a');
  const b = client('b');
  expect(client('a')).toBe(a);
  client('c');
  expect(client('a')).toBe(a);
  expect(client('b')).not.toBe(b);
});

it('AgentPool.keepOnly closes the clients of all other addresses', async () => {
  const a = client('a');
  const b = client('b');
  pool.keepOnly(new Set(['b.test:1', 'c.test:1']));
  expect(client('b')).toBe(b);
  expect(client('a')).not.toBe(a);
  await expect(a.resolve('registry.test/a:1', { timeoutMs: 5000 })).rejects.toThrow(/shut down/);
});
