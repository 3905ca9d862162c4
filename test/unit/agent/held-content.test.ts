import { describe, expect, it } from 'vitest';
import { HeldContent } from '../../../src/agent/held-content.ts';
import type { IntegrityState } from '../../../src/agent/integrity.ts';
import { Observations } from '../../../src/agent/observations.ts';
import type { BlobInfo, ContentStore, NamedDescriptor } from '../../../src/agent/store.ts';
import { digestOf, type Digest } from '../../../src/oci/digest.ts';

const one = digestOf(Buffer.from('one'));
const name = 'registry.test/a:1';

const info = (digest: Digest): BlobInfo => ({ digest, sizeBytes: 3, fingerprint: 'f' });

function scene(
  options: { held?: Digest[]; state?: IntegrityState; record?: NamedDescriptor } = {},
) {
  const { held = [one], state = 'verified' } = options;
  const requested: Digest[] = [];
  const reported: string[] = [];
  const closed: Digest[] = [];
  const store: Partial<ContentStore> = {
    stat: async (digest) => (held.includes(digest) ? info(digest) : undefined),
    open: async (digest) =>
      held.includes(digest)
        ? { ...info(digest), read: async () => 0, close: async () => void closed.push(digest) }
        : undefined,
    resolve: async () => options.record,
    async *blobs() {
      for (const digest of held) yield info(digest);
    },
    async *names() {
      if (options.record !== undefined) yield options.record;
    },
  };
  const observations = new Observations({ maxNames: 10 });
  const content = new HeldContent({
    store: store as ContentStore,
    integrity: {
      stateOf: () => state,
      request: (digest) => requested.push(digest),
    },
    reports: {
      add: async (digest, { host }) => {
        reported.push(`${digest} ${host}`);
        return 'verified';
      },
    },
    observations,
  });
  return { content, observations, requested, reported, closed };
}

async function listed(content: HeldContent): Promise<Digest[]> {
  const digests: Digest[] = [];
  for await (const { digest } of content.blobs({})) digests.push(digest);
  return digests;
}

describe('HeldContent', () => {
  it('HeldContent vouches for what was hashed', async () => {
    const { content, requested, closed } = scene();
    expect(await content.stat(one, {})).toEqual({ ...info(one), verified: true });
    const opened = await content.open(one, {});
    expect(opened?.verified).toBe(true);
    expect([requested, closed]).toEqual([[], []]);
  });

  it('HeldContent offers what was not hashed yet, and asks for it to be', async () => {
    const { content, requested } = scene({ state: 'unverified' });
    expect(await content.stat(one, {})).toEqual({ ...info(one), verified: false });
    expect((await content.open(one, {}))?.verified).toBe(false);
    expect(await listed(content)).toEqual([one]);
    expect(requested).toEqual([one, one, one]);
  });

  it('HeldContent hides what is known to be wrong, and leaves no file open', async () => {
    const { content, closed } = scene({ state: 'corrupt' });
    expect(await content.stat(one, {})).toBeUndefined();
    expect(await content.open(one, {})).toBeUndefined();
    expect(await listed(content)).toEqual([]);
    expect(closed).toEqual([one]);
  });

  it('HeldContent has nothing that the store does not have', async () => {
    const { content } = scene({ held: [] });
    expect(await content.stat(one, {})).toBeUndefined();
    expect(await content.open(one, {})).toBeUndefined();
  });

  it('HeldContent gives what the upstream confirmed before the record of the store', async () => {
    const described = { digest: one, mediaType: 'a/b', sizeBytes: 3 };
    const record = { name, ...described, recordedAtMs: 900 };
    const { content, observations } = scene({ record });
    expect(await content.resolve(name, {})).toEqual({
      tags: [{ ...described, recordedAtMs: 900 }],
      registrySeen: false,
    });
    observations.record(name, { ...described, observedAtMs: 500 });
    expect(await content.resolve(name, {})).toEqual({
      tags: [
        { ...described, observedAtMs: 500 },
        { ...described, recordedAtMs: 900 },
      ],
      registrySeen: true,
    });
  });

  it('HeldContent has wrong bytes hashed again', async () => {
    const { content, reported } = scene();
    await content.reportCorrupt(one, { host: 'node-b' });
    expect(reported).toEqual([`${one} node-b`]);
  });
});

describe('Observations', () => {
  const tag = (text: string, observedAtMs: number) => ({
    digest: digestOf(Buffer.from(text)),
    mediaType: 'a/b',
    sizeBytes: 1,
    observedAtMs,
  });

  it('Observations keeps the latest statement, in whatever order they come', () => {
    const observations = new Observations({ maxNames: 10 });
    observations.record(name, tag('new', 200));
    observations.record(name, tag('old', 100));
    expect(observations.get(name)).toEqual(tag('new', 200));
    observations.record(name, tag('same moment', 200));
    expect(observations.get(name)).toEqual(tag('same moment', 200));
  });

  it('Observations keeps to its bound and forgets the name unused longest', () => {
    const observations = new Observations({ maxNames: 2 });
    for (const n of [1, 2, 3]) observations.record(`registry.test/a:${n}`, tag('x', n));
    expect(observations.get('registry.test/a:1')).toBeUndefined();
    expect([...observations.entries()].length).toBe(2);
  });

  it('Observations knows which registries have ever confirmed anything', () => {
    const observations = new Observations({ maxNames: 1 });
    observations.record(name, tag('x', 1));
    observations.record('other.test/b:1', tag('x', 1));
    // Its name has gone, the registry is still known.
    expect(observations.hasSeen('registry.test/b:9')).toBe(true);
    expect(observations.hasSeen('third.test/b:9')).toBe(false);
  });
});
