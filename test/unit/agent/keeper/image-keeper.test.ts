import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { ImageKeeper } from '../../../../src/agent/keeper/image-keeper.ts';
import { createKeeperMetrics } from '../../../../src/agent/keeper/keeper-metrics.ts';
import { StoredManifests } from '../../../../src/agent/keeper/stored-manifests.ts';
import { StoreUnavailableError } from '../../../../src/agent/store.ts';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';
import { silentLogger } from '../../../../src/telemetry/logger.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { waitFor } from '../../../support/wait.ts';
import { FakeContent, indexOf, manifestOf } from './fake-content.ts';

const prefix = 'containerd.io/gc.ref.content.';
const mark = 'salvor.dev/kept';
const bytes = manifestOf('app', ['a', 'b']);
const manifest = digestOf(bytes);
const [a, b] = ['a', 'b'].map((name) => digestOf(Buffer.from(name))) as [Digest, Digest];
const config = digestOf(Buffer.from('app-config'));
/** What is there while discard is on. */
const discarded = {
  [`${prefix}config`]: config,
  'containerd.io/distribution.source.r': 'team/app',
};

let content: FakeContent;
let clock: FakeClock;
let keeper: ImageKeeper;
let register: Registry;
let found: Digest[];
let warnings: string[];

beforeEach(() => {
  content = new FakeContent();
  clock = new FakeClock();
  register = new Registry();
  found = [];
  warnings = [];
  keeper = new ImageKeeper(
    { retryDelaysMs: [100, 1000], maxWaiting: 2 },
    {
      editor: content,
      manifests: new StoredManifests({}, { store: content }),
      finder: { find: async () => found },
      metrics: createKeeperMetrics(register),
      log: { ...silentLogger, warn: (_: unknown, message: string) => void warnings.push(message) },
      clock,
    },
  );
});

afterEach(() => keeper.stop());

async function count(result: string): Promise<number> {
  const metric = await register.getSingleMetric('salvor_agent_keeper_images_total')!.get();
  return metric.values.find(({ labels }) => labels['result'] === result)?.value ?? 0;
}

describe('ImageKeeper', () => {
  const images = [{ manifest, indexes: [] }];

  it('restores what is missing in one step, and marks it', async () => {
    content.add(bytes, discarded);
    expect(await keeper.keep({ digest: a, images })).toBe(2);
    expect(content.updates).toEqual([manifest]);
    expect(await content.labels(manifest)).toEqual({
      ...discarded,
      [`${prefix}l.0`]: a,
      [`${prefix}l.1`]: b,
      [mark]: 'l.0-1',
    });
    expect(await count('restored')).toBe(1);
  });

  it('does nothing the second time', async () => {
    content.add(bytes, discarded);
    await keeper.keep({ digest: a, images });
    expect(await keeper.keep({ digest: b, images })).toBe(0);
    expect(content.updates).toHaveLength(1);
    expect(await count('complete')).toBe(1);
  });

  it('does nothing where containerd keeps layers', async () => {
    content.add(bytes, { ...discarded, [`${prefix}l.0`]: a, [`${prefix}l.1`]: b });
    expect(await keeper.keep({ digest: a, images })).toBe(0);
    expect(content.updates).toEqual([]);
  });

  it('adds to an earlier mark', async () => {
    content.add(bytes, { ...discarded, [`${prefix}l.0`]: a, [mark]: 'l.0' });
    expect(await keeper.keep({ digest: a, images })).toBe(1);
    expect((await content.labels(manifest))?.[mark]).toBe('l.0-1');
  });

  it('restores the reference from an index to this manifest, and no other', async () => {
    const other = manifestOf('other', ['c']);
    const index = content.add(indexOf([other, bytes]));
    content.add(bytes, { ...discarded, [`${prefix}l.0`]: a, [`${prefix}l.1`]: b });
    const gone = digestOf(Buffer.from('no index'));
    const passed = [{ manifest, indexes: [gone, index] }];
    expect(await keeper.keep({ digest: a, images: passed })).toBe(1);
    expect(await content.labels(index)).toEqual({ [`${prefix}m.1`]: manifest, [mark]: 'm.1' });
  });

  it('looks for the images itself when the registry knows none', async () => {
    found = [content.add(bytes, discarded)];
    expect(await keeper.keep({ digest: a, images: [] })).toBe(2);
    found = [];
    expect(await keeper.keep({ digest: a, images: [] })).toBe(0);
    expect(await count('unknown')).toBe(1);
  });

  it('waits for a manifest that is not there yet', async () => {
    expect(await keeper.keep({ digest: a, images })).toBe(0);
    await clock.untilSleeping();
    clock.advance(100);
    await clock.untilSleeping();
    content.add(bytes, discarded);
    clock.advance(1000);
    await waitFor(() => content.updates.length > 0, { what: 'the restored labels' });
    expect(content.updates).toEqual([manifest]);
    expect(await count('absent')).toBe(2);
  });

  it('does not wait for ever, nor for many', async () => {
    const gone = [1, 2, 3].map((name) => digestOf(Buffer.from(`gone ${name}`)));
    for (const one of gone) {
      await keeper.keep({ digest: a, images: [{ manifest: one, indexes: [] }] });
    }
    await clock.untilSleeping();
    expect(clock.sleeping).toBe(2);
    clock.advance(100);
    await clock.untilSleeping();
    clock.advance(1000);
    await keeper.stop();
    expect(clock.sleeping).toBe(0);
  });

  it('does not trust a manifest whose bytes are wrong', async () => {
    content.blobs.set(manifest, { bytes: manifestOf('app', ['a', 'c']), labels: discarded });
    expect(await keeper.keep({ digest: a, images })).toBe(0);
    expect(content.updates).toEqual([]);
    expect(content.closed).toBe(content.opened);
  });

  it('says when containerd cannot be asked, and can go on afterwards', async () => {
    content.add(bytes, discarded);
    content.failure = new StoreUnavailableError('containerd is away');
    await expect(keeper.keep({ digest: a, images })).rejects.toThrow(StoreUnavailableError);
    expect(warnings).toEqual(['cannot keep the layers of an image']);
    expect(await count('failed')).toBe(1);
    content.failure = undefined;
    expect(await keeper.keep({ digest: a, images })).toBe(2);
  });

  it('works once on what several ask for at a time', async () => {
    content.add(bytes, discarded);
    await Promise.all([a, b, config].map((digest) => keeper.keep({ digest, images })));
    expect(content.updates).toHaveLength(1);
  });

  it('takes no more work when it has stopped', async () => {
    content.add(bytes, discarded);
    await keeper.stop();
    await expect(keeper.keep({ digest: a, images })).rejects.toThrow('The agent stops');
    expect(content.updates).toEqual([]);
  });
});
