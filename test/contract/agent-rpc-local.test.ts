import { stat } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import type { Digest } from '../../src/oci/digest.ts';
import type { LocatedHolder, LocateSummary } from '../../src/rpc/agent-client.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { PROOF } from './agent-scene.ts';
import { agentSuite } from './agent-suite.ts';

const LIMITS = { timeoutMs: 5000 };

expectNoLeaks();

const { start } = agentSuite();

describe('Local over the unix socket', () => {
  it('Local answers what the own registry asks, and so does Peer beside it', async () => {
    const scene = await start();
    const client = scene.local();
    const { digest } = scene.store.add(7);
    expect(await client.stat(digest, LIMITS)).toEqual({
      sizeBytes: 7,
      verified: true,
      busy: false,
    });
    const events: ({ holder: LocatedHolder } | { summary: LocateSummary })[] = [];
    for await (const event of client.locate({ digest }, LIMITS)) events.push(event);
    expect(events).toMatchObject([
      { holder: { node: 'me', address: '', sizeBytes: 7, verified: true, busy: false, tags: [] } },
      { summary: { asked: 1, failed: 0 } },
    ]);
    expect(await client.abortIngest(digest, LIMITS)).toBe(1);
    expect(scene.store.aborted).toEqual([digest]);
  });

  it('Local remembers what the upstream confirmed, and gives it back by name', async () => {
    const scene = await start();
    const client = scene.local();
    const { digest } = scene.store.add(7);
    const tag = { digest, mediaType: 'a/b', sizeBytes: 7, observedAtMs: 1_700_000_000_123 };
    await client.observe('registry.test/a:1', tag, LIMITS);
    const events: unknown[] = [];
    for await (const event of client.locate({ name: 'registry.test/a:1' }, LIMITS)) {
      events.push(event);
    }
    expect(events[0]).toMatchObject({ holder: { tags: [tag], registrySeen: true } });
  });

  it('Local says which holders are in another zone', async () => {
    const scene = await start();
    scene.others.push(
      { name: 'near', address: 'near:1', zone: 'z1' },
      { name: 'far', address: 'far:1', zone: 'z2' },
    );
    const far: Record<string, boolean> = {};
    for await (const event of scene.local().locate({ name: 'registry.test/a:1' }, LIMITS)) {
      if ('holder' in event) far[event.holder.node] = event.holder.far;
    }
    expect(far).toEqual({ me: false, near: false, far: true });
  });

  it('Local passes on what images a blob is a part of, if they make sense', async () => {
    const scene = await start();
    const client = scene.local();
    const { digest } = scene.store.add(1);
    const other = scene.store.add(1).digest;
    const notice = { digest, images: [{ manifest: other, indexes: [digest, other] }] };
    expect(await client.keep(notice, LIMITS)).toBe(3);
    expect(await client.keep({ digest, images: [] }, LIMITS)).toBe(3);
    const odd = 'sha256:odd' as Digest;
    const invalid = { kind: 'invalid' };
    await expect(client.keep({ digest: odd, images: [] }, LIMITS)).rejects.toMatchObject(invalid);
    const image = { manifest: other, indexes: [odd] };
    await expect(client.keep({ digest, images: [image] }, LIMITS)).rejects.toMatchObject(invalid);
    expect(scene.notices).toEqual([notice, { digest, images: [] }]);
  });

  it('Local takes what a proof came to', async () => {
    const scene = await start();
    await scene.local().recordProof(PROOF, LIMITS);
    expect(scene.proofs).toEqual([PROOF]);
  });

  it('Local refuses a proof that makes no sense', async () => {
    const scene = await start();
    const odd = { ...PROOF, images: -1 };
    await expect(scene.local().recordProof(odd, LIMITS)).rejects.toMatchObject({ kind: 'invalid' });
    expect(scene.proofs).toEqual([]);
  });

  it('Local refuses observations that say nothing', async () => {
    const scene = await start();
    const client = scene.local();
    const { digest } = scene.store.add(7);
    const timeless = { digest, mediaType: 'a/b', sizeBytes: 7 };
    for (const [name, tag] of [
      ['', { ...timeless, observedAtMs: 5 }],
      ['registry.test/a:1', timeless],
      ['registry.test/a:1', { ...timeless, observedAtMs: 5, sizeBytes: -5 }],
      [`registry.test/${'a'.repeat(2000)}:1`, { ...timeless, observedAtMs: 5 }],
      ['registry.test/a:1', { ...timeless, mediaType: 'a'.repeat(300), observedAtMs: 5 }],
      ['registry.test/a:1', { ...timeless, observedAtMs: Date.now() + 3_600_000 }],
    ] as const) {
      await expect(client.observe(name, tag, LIMITS)).rejects.toMatchObject({ kind: 'invalid' });
    }
  });

  it('Local refuses keys that are none', async () => {
    const scene = await start();
    const client = scene.local();
    for (const key of [{ digest: 'sha256:x' }, { name: '' }]) {
      await expect(client.locate(key as never, LIMITS).next()).rejects.toMatchObject({
        kind: 'invalid',
      });
    }
  });

  it('Local takes the place of a dead agent on its socket, for this user and group alone', async () => {
    const first = await start();
    const { socket } = first;
    const second = await start({ socket });
    const { digest } = second.store.add(9);
    expect(await second.local().stat(digest, LIMITS)).toMatchObject({ sizeBytes: 9 });
    expect((await stat(socket)).mode & 0o777).toBe(0o660);
  });
});
