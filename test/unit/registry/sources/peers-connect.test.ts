import { expect, it } from 'vitest';
import { digestOf } from '../../../../src/oci/digest.ts';
import { PeerLoad } from '../../../../src/registry/sources/peer-load.ts';
import { Peers } from '../../../../src/registry/sources/peers.ts';
import { Quarantine } from '../../../../src/registry/sources/quarantine.ts';
import type { AgentClient, LocatedHolder } from '../../../../src/rpc/agent-client.ts';
import { silentLogger } from '../../../../src/telemetry/logger.ts';

const bytes = Buffer.from('content');
const holder: LocatedHolder = {
  node: 'a',
  address: 'a.test:1',
  sizeBytes: bytes.length,
  verified: true,
  busy: false,
  tags: [],
  registrySeen: true,
  far: false,
};

/** Opens a blob at a node to which this registry's own connection is as it says. */
async function open(isFailing: boolean): Promise<string[]> {
  const calls: string[] = [];
  const client = {
    isFailing,
    connect: async () => calls.push('connect') > 0,
    read: () => {
      calls.push('read');
      return {
        async *[Symbol.asyncIterator]() {
          yield { data: bytes, sizeBytes: bytes.length, verified: true };
        },
        cancel: () => undefined,
      };
    },
  } as unknown as AgentClient;
  const peers = new Peers(
    { budgets: { locateMs: 1000, peerHeadersMs: 1000 } },
    {
      agent: undefined,
      pool: { client: () => client },
      quarantine: new Quarantine({ ttlMs: 1000, maxEntries: 10 }),
      load: new PeerLoad(),
      log: silentLogger,
    },
  );
  const { signal } = new AbortController();
  const body = await peers
    .source(holder)
    .open(digestOf(bytes), { start: 0 }, { signal, hashed: true });
  body.cancel();
  return calls;
}

it('Peers connect to a holder first where the last try to connect from here has failed', async () => {
  expect(await open(true)).toEqual(['connect', 'read']);
});

it('Peers ask a holder at once that could be reached last', async () => {
  expect(await open(false)).toEqual(['read']);
});
