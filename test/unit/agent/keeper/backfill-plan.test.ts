import { describe, expect, test } from 'vitest';
import {
  planBackfill,
  type BackfillFindings,
  type BackfillPolicy,
} from '../../../../src/agent/keeper/backfill-plan.ts';
import type { ImagePart, LocalImage } from '../../../../src/agent/keeper/local-images.ts';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';

const policy: BackfillPolicy = { backfill: 'always', onlyInUse: false, repair: 'auto' };
const nothing: BackfillFindings = { corrupt: new Set(), recorded: new Set(), discards: false };

function digest(name: string): Digest {
  return digestOf(Buffer.from(name));
}

function part(name: string, more: Partial<ImagePart> = {}): ImagePart {
  return { digest: digest(name), sizeBytes: 100, kind: 'layer', isHeld: true, ...more };
}

function image(name: string, parts: readonly ImagePart[], more: Partial<LocalImage> = {}) {
  const found: LocalImage = {
    digest: digest(name),
    name,
    repositories: [{ registry: 'registry.test', repository: name }],
    isInUse: false,
    manifestDigest: digest(`manifest of ${name}`),
    isDiscarded: false,
    parts,
    ...more,
  };
  return found;
}

describe('planBackfill', () => {
  test('does nothing for images that are complete', () => {
    const plan = planBackfill([image('a', [part('one')])], nothing, policy);
    expect(plan).toMatchObject({ jobs: [], incompleteImages: 0 });
  });

  test('puts repairs first, then what is in use, then the smallest', () => {
    const images = [
      image('idle', [part('small', { isHeld: false, sizeBytes: 1 })]),
      image(
        'used',
        [
          part('large', { isHeld: false, sizeBytes: 1000 }),
          part('medium', { isHeld: false, sizeBytes: 10 }),
        ],
        { isInUse: true },
      ),
      image('broken', [part('wrong'), part('config', { kind: 'config', isHeld: false })]),
    ];
    const findings = { ...nothing, corrupt: new Set([digest('wrong')]) };
    const { jobs, incompleteImages } = planBackfill(images, findings, policy);
    expect(jobs.map((job) => [job.digest, job.damage])).toEqual([
      [digest('wrong'), 'corrupt'],
      [digest('config'), 'lost'],
      [digest('medium'), 'missing'],
      [digest('large'), 'missing'],
      [digest('small'), 'missing'],
    ]);
    expect(incompleteImages).toBe(3);
  });

  test('fetches a layer of several images once, for all of them', () => {
    const shared = part('shared', { isHeld: false });
    const images = [image('a', [shared]), image('b', [shared], { isInUse: true })];
    const { jobs } = planBackfill(images, nothing, { ...policy, onlyInUse: true });
    expect(jobs).toHaveLength(1);
    const all = planBackfill(images, nothing, policy).jobs;
    expect(all).toHaveLength(1);
    expect(all[0]).toMatchObject({
      isInUse: true,
      manifests: [digest('manifest of a'), digest('manifest of b')],
      repositories: [{ repository: 'a' }, { repository: 'b' }],
    });
  });

  test.each([
    { backfill: 'off', isDiscarded: true, discards: true, jobs: 0 },
    { backfill: 'auto', isDiscarded: false, discards: false, jobs: 0 },
    { backfill: 'auto', isDiscarded: true, discards: false, jobs: 1 },
    { backfill: 'auto', isDiscarded: false, discards: true, jobs: 1 },
    { backfill: 'always', isDiscarded: false, discards: false, jobs: 1 },
  ] as const)('fetches missing layers as told: %o', ({ backfill, isDiscarded, discards, jobs }) => {
    const images = [image('a', [part('one', { isHeld: false })], { isDiscarded })];
    const plan = planBackfill(images, { ...nothing, discards }, { ...policy, backfill });
    expect(plan.jobs).toHaveLength(jobs);
    expect(plan.incompleteImages).toBe(1);
    expect(plan.discards).toBe(isDiscarded || discards);
  });

  test('takes a layer that the store has a record of for lost, not for missing', () => {
    const images = [image('a', [part('one', { isHeld: false })])];
    const findings = { ...nothing, recorded: new Set([digest('one')]) };
    const { jobs } = planBackfill(images, findings, { ...policy, backfill: 'off' });
    expect(jobs).toMatchObject([{ damage: 'lost' }]);
    expect(
      planBackfill(images, findings, { ...policy, backfill: 'off', repair: 'off' }).jobs,
    ).toEqual([]);
  });

  test('leaves layers to a snapshotter that fetches them by itself', () => {
    const parts = [part('one', { isHeld: false })];
    const images = [image('a', parts, { lazySnapshotter: 'stargz', isDiscarded: true })];
    expect(planBackfill(images, nothing, policy)).toEqual({
      jobs: [],
      incompleteImages: 0,
      lazyImages: 1,
      discards: false,
    });
  });
});
