import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../../src/oci/digest.ts';
import { PeerLoad } from '../../../../src/registry/sources/peer-load.ts';
import { Peers } from '../../../../src/registry/sources/peers.ts';
import { Quarantine } from '../../../../src/registry/sources/quarantine.ts';
import { silentLogger } from '../../../../src/telemetry/logger.ts';
import { FakeAgent } from '../fake-sources.ts';

const bytes = Buffer.from('any');
const digest = digestOf(bytes);

/** Two nodes that have a blob: the far one answers first. */
function scene(states: { readonly near?: object; readonly far?: object } = {}) {
  const agent = new FakeAgent([
    { node: 'far', bytes, far: true, ...states.far },
    { node: 'near', bytes, ...states.near },
  ]);
  const load = new PeerLoad({ now: () => 0 });
  const peers = new Peers(
    { budgets: { locateMs: 1000, peerHeadersMs: 1000 } },
    {
      agent: agent.client,
      pool: agent.pool,
      quarantine: new Quarantine({ ttlMs: 60_000, maxEntries: 100 }),
      load,
      log: silentLogger,
    },
  );
  const chosen = async (): Promise<string | undefined> => {
    const search = peers.search({ digest }, new AbortController().signal);
    await search.all();
    const holder = await search.next(() => true);
    search.cancel();
    return holder?.node;
  };
  return { chosen, load };
}

describe('Peers', () => {
  it('Peers take a node of the own zone, though another answers first', async () => {
    expect(await scene().chosen()).toBe('near');
  });

  it('Peers take a node of another zone before a much busier one, or one that has failed', async () => {
    const busy = scene();
    for (let streams = 0; streams < 7; streams += 1) busy.load.begin('near');
    expect(await busy.chosen()).toBe('far');
    const failed = scene();
    failed.load.recordFailure('near');
    expect(await failed.chosen()).toBe('far');
  });

  it('Peers take a hashed copy of another zone before one that nobody has hashed', async () => {
    expect(await scene({ near: { verified: false } }).chosen()).toBe('far');
  });

  it('Peers stay in the own zone for the sake of a few streams', async () => {
    const { chosen, load } = scene();
    for (let streams = 0; streams < 5; streams += 1) load.begin('near');
    expect(await chosen()).toBe('near');
  });
});
