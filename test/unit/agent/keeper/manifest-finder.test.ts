import { create } from '@bufbuild/protobuf';
import { describe, expect, it } from 'vitest';

import { ManifestFinder } from '../../../../src/agent/keeper/manifest-finder.ts';
import { StoredManifests } from '../../../../src/agent/keeper/stored-manifests.ts';
import { StoreUnavailableError } from '../../../../src/agent/store.ts';
import { digestOf } from '../../../../src/oci/digest.ts';
import { InfoSchema } from '../../../../src/rpc/gen/containerd/services/content/v1/content_pb.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { FakeContent, manifestOf } from './fake-content.ts';

const base = digestOf(Buffer.from('base'));

function scene(options: { maxManifests?: number; maxFound?: number } = {}) {
  const content = new FakeContent();
  const clock = new FakeClock();
  const lists: { filters: readonly string[] | undefined }[] = [];
  let failure: Error | undefined;
  const client = {
    async *content({ filters }: { readonly filters?: readonly string[] }) {
      lists.push({ filters });
      if (failure !== undefined) throw failure;
      yield create(InfoSchema, { digest: 'sha384:odd' });
      for (const digest of content.blobs.keys()) yield create(InfoSchema, { digest });
    },
  };
  const manifests = new StoredManifests({}, { store: content });
  const finder = new ManifestFinder(options, { client, manifests, clock });
  return { content, clock, lists, finder, fail: (error?: Error) => (failure = error) };
}

describe('ManifestFinder', () => {
  it('finds every manifest that lists a blob, and reads each once', async () => {
    const { content, clock, finder, lists } = scene();
    const one = content.add(manifestOf('one', ['base', 'x']));
    const two = content.add(manifestOf('two', ['base']));
    content.add(manifestOf('three', ['y']));
    content.add(Buffer.from('no manifest'));
    expect(await finder.find(base, {})).toEqual([one, two]);
    expect(lists[0]!.filters).toEqual(['labels."containerd.io/gc.ref.content.config"']);
    clock.advance(1000);
    const opened = content.opened;
    expect(await finder.find(digestOf(Buffer.from('two-config')), {})).toEqual([two]);
    // What is no manifest is looked at again.
    expect(content.opened).toBe(opened + 1);
  });

  it('asks containerd once for all who come within a short time', async () => {
    const { content, clock, finder, lists } = scene();
    content.add(manifestOf('one', ['base']));
    await Promise.all([finder.find(base, {}), finder.find(base, {})]);
    clock.advance(999);
    await finder.find(base, {});
    expect(lists).toHaveLength(1);
    clock.advance(1);
    await finder.find(base, {});
    expect(lists).toHaveLength(2);
  });

  it('forgets a list that failed', async () => {
    const { content, finder, fail } = scene();
    const one = content.add(manifestOf('one', ['base']));
    fail(new StoreUnavailableError('containerd is away'));
    await expect(finder.find(base, {})).rejects.toThrow(StoreUnavailableError);
    fail();
    expect(await finder.find(base, {})).toEqual([one]);
  });

  it('has bounds on what it looks at and what it finds', async () => {
    const few = scene({ maxManifests: 2 });
    const many = scene({ maxFound: 1 });
    for (const { content } of [few, many]) {
      for (const name of ['one', 'two', 'three']) content.add(manifestOf(name, ['base']));
    }
    expect(await few.finder.find(base, {})).toHaveLength(2);
    expect(await many.finder.find(base, {})).toHaveLength(1);
  });
});
