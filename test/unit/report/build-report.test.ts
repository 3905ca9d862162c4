import { describe, expect, test } from 'vitest';
import { MEDIA_TYPE } from '../../../src/oci/media-type.ts';
import type { PullPolicy } from '../../../src/policy/policy.ts';
import type { ReportImage } from '../../../src/report/report.ts';
import {
  amd64,
  arm64,
  DAY_MS,
  digest,
  indexOf,
  Node,
  NOW_MS,
  only,
  reportOf,
  rules,
  unread,
} from './report-scene.ts';

const name = 'registry.test/team/app:1';
const app = indexOf('app');

const a = (): Node => new Node('a');
const b = (): Node => new Node('b');
const full = (node: Node): Node => node.image(name, app).observe(name, app);
const codes = ({ reasons }: ReportImage): string[] => reasons.map(({ code }) => code);

describe('buildReport', () => {
  test('buildReport lets an image survive of which every blob is on two nodes', async () => {
    const report = await reportOf([full(a()), full(b())]);
    const image = only(report);
    expect(image).toMatchObject({ verdict: 'survives', reasons: [], isServableByDigest: true });
    expect(image.nodes).toEqual([
      { node: 'a', state: 'complete' },
      { node: 'b', state: 'complete' },
    ]);
    expect(image.confirmedAt).toBe(new Date(NOW_MS - DAY_MS).toISOString());
    expect(image.sizeBytes).toBe(50);
    expect(report.summary).toMatchObject({ images: 1, survives: 1, servableShare: 1 });
  });

  test('buildReport counts blobs, not complete copies', async () => {
    const without = (node: Node, ...parts: string[]): Node =>
      node.image(name, app, { without: parts }).observe(name, app);
    const halves = [without(a(), 'app layer 1'), without(b(), 'app layer 2')];
    const image = only(await reportOf(halves));
    expect(image.verdict).toBe('single-copy');
    expect(image.reasons.map(({ message }) => message)).toEqual([
      `only b has the layer ${digest('app layer 1')}`,
      `only a has the layer ${digest('app layer 2')}`,
    ]);
    expect(image.reasons.map(({ digests }) => digests)).toEqual([
      [digest('app layer 1')],
      [digest('app layer 2')],
    ]);
    const c = without(new Node('c'), 'app manifest', 'app config', 'app index');
    expect(only(await reportOf([...halves, c])).verdict).toBe('survives');
  });

  test.each([
    ['app index', 'index-missing'],
    ['app manifest', 'manifest-missing'],
    ['app config', 'config-missing'],
    ['app layer 2', 'layer-missing'],
  ])('buildReport says exactly what is missing: %s', async (lost, code) => {
    const image = only(await reportOf([full(a()).lose(lost), full(b()).lose(lost)]));
    expect(image.verdict).toBe('not-servable');
    expect(codes(image)).toEqual([code]);
    if (lost !== 'app manifest') expect(image.reasons[0]?.digests).toEqual([digest(lost)]);
  });

  test('buildReport counts copies that are wrong, or of a wrong size, for none', async () => {
    const nodes = [
      full(a()).hold('app layer 1', { isCorrupt: true }),
      full(b()).hold('app layer 1', { sizeBytes: 9 }),
    ];
    const report = await reportOf(nodes);
    expect(codes(only(report))).toEqual(['corrupt']);
    expect(only(report).reasons[0]?.message).toContain('is wrong: a, b');
    expect(report.blobs[digest('app layer 1')]).toMatchObject({ nodes: [], corrupt: ['a', 'b'] });
  });

  test('buildReport counts copies that garbage collection will take for none', async () => {
    const passing = full(a()).hold('app layer 1', { isKept: false });
    const image = only(await reportOf([passing]));
    expect(codes(image)).toEqual(['passing']);
    expect(image.reasons[0]?.message).toContain('garbage collection takes it from a');
    expect(
      only(await reportOf([passing, full(b())])).reasons.map(({ message }) => message),
    ).toEqual([`only b has the layer ${digest('app layer 1')}`]);
  });

  test('buildReport leaves out platforms of which no node has the manifest', async () => {
    const both = indexOf('app', [amd64, arm64]);
    const here = a().image(name, both).observe(name, both).lose('app arm64 manifest');
    const report = await reportOf([here]);
    expect(only(report).platform).toBe('linux/amd64');
    const there = b().hold('app arm64 manifest', {});
    expect((await reportOf([here, there])).images.map(({ platform }) => platform)).toEqual([
      'linux/amd64',
      'linux/arm64',
    ]);
  });

  test('buildReport says so when no node has any manifest that the index lists', async () => {
    const node = full(a()).lose('app manifest');
    const image = only(await reportOf([node]));
    expect(image).toMatchObject({ verdict: 'not-servable', platform: 'unknown' });
    expect(codes(image)).toEqual(['manifest-missing']);
  });

  test('buildReport puts together what different nodes could read of an image', async () => {
    const index = a().image(name, unread(app)).observe(name, app);
    const other = b()
      .image('registry.test/team/other:1', app)
      .observe('registry.test/team/other:1', app);
    const report = await reportOf([index, other]);
    expect(report.images.find(({ image }) => image === name)?.parts).toHaveLength(5);
  });

  test('buildReport goes by the newest that the upstream confirmed, and by nothing older', async () => {
    const moved = { root: digest('newer') };
    const image = only(await reportOf([full(a()), full(b()).observe(name, moved, 1000)]));
    expect(image).toMatchObject({ verdict: 'not-servable', digest: moved.root });
    expect(codes(image)).toEqual(['tag-moved']);
  });

  test('buildReport takes a store record for a tag only where its registry was ever seen', async () => {
    const imported = a().image(name, app);
    const image = only(await reportOf([imported]));
    expect(codes(image)).toEqual(['registry-never-seen']);
    expect(image.isServableByDigest).toBe(true);
    const seen = b().seeRegistry('registry.test');
    expect(only(await reportOf([imported, seen])).verdict).toBe('single-copy');
  });

  test.each([
    [{ mode: 'bypass' }, 'policy', false],
    [{ mode: 'observe' }, 'policy', false],
    [{ access: 'online' }, 'policy', false],
    [{ staleOn: ['429', '5xx'] }, 'policy', true],
    [{ staleMaxAgeMs: DAY_MS / 2 }, 'confirmation-too-old', true],
  ] as [Partial<PullPolicy>, string, boolean][])(
    'buildReport goes by the policy: %o',
    async (policy, code, byDigest) => {
      const image = only(await reportOf([full(a()), full(b())], rules(policy)));
      expect(codes(image)).toEqual([code]);
      expect(image.isServableByDigest).toBe(byDigest);
    },
  );

  test('buildReport goes by the policy where it allows: a recent confirmation', async () => {
    const report = await reportOf([full(a()), full(b())], rules({ staleMaxAgeMs: 2 * DAY_MS }));
    expect(only(report).verdict).toBe('survives');
  });

  test('buildReport knows registries that are not allowed, and manifests that are too big', async () => {
    const denied = rules({}, { allowsRegistry: (registry) => registry !== 'registry.test' });
    expect(codes(only(await reportOf([full(a())], denied)))).toEqual(['registry-not-allowed']);
    const small = rules({}, { maxManifestBytes: 9 });
    expect(codes(only(await reportOf([full(a())], small)))).toEqual(['manifest-too-big']);
  });

  test('buildReport knows layers that come from elsewhere, and layers that were never fetched', async () => {
    const [platform] = app.platforms;
    const foreign = {
      ...app,
      platforms: [
        {
          ...platform!,
          parts: platform!.parts.map((one) => ({ ...one, isForeign: one.role === 'layer' })),
        },
      ],
    };
    const image = only(await reportOf([a().image(name, foreign).observe(name, foreign)]));
    expect(codes(image)).toEqual(['foreign-layer']);
    const lazy = { ...app, platforms: [{ ...platform!, lazySnapshotter: 'stargz' }] };
    const node = a()
      .image(name, lazy, { without: ['app layer 1'] })
      .observe(name, lazy);
    expect(only(await reportOf([node])).reasons[0]?.message).toMatch(
      /^no node has the layer .*; stargz mounts the image without fetching its layers$/,
    );
  });

  test('buildReport knows which entry of an index registries look at first', async () => {
    const v3 = { ...amd64, variant: 'v1' };
    const tree = indexOf('app', [amd64, arm64]);
    const twice = {
      ...tree,
      platforms: [tree.platforms[1]!, tree.platforms[0]!].map((one, n) => ({
        ...one,
        platform: n === 0 ? amd64 : v3,
      })),
    };
    const node = a().image(name, twice).observe(name, twice).lose('app arm64 config');
    const report = await reportOf([node]);
    const second = report.images.find(({ platform }) => platform === 'linux/amd64/v1')!;
    expect(codes(second)).toEqual(['other-platform-first']);
    expect(second.isServableByDigest).toBe(true);
  });

  test('buildReport has a row for a last copy that no store names any more', async () => {
    const keeper = a().image(name, app).forgetNames();
    const report = await reportOf([keeper, b().observe(name, app)]);
    expect(only(report)).toMatchObject({ image: name, verdict: 'single-copy', nodes: [] });
    const gone = { root: digest('gone') };
    expect((await reportOf([b().observe(name, gone)])).images).toEqual([]);
  });

  test('buildReport has rows for names that nobody can ask for and records that make no sense', async () => {
    const node = a().image('import-2026-01-01', app).oddImage(name, 'it points at nothing');
    const { images } = await reportOf([node]);
    expect(images.map((image) => [image.image, ...codes(image)])).toEqual([
      ['import-2026-01-01', 'name'],
      [name, 'unreadable'],
    ]);
    expect(images[1]?.reasons[0]?.message).toBe('it points at nothing');
  });

  test('buildReport gives digests a row only where no tag of the repository names them', async () => {
    const pinned = `registry.test/team/app@${app.root}`;
    const node = full(a())
      .image(pinned, app)
      .image(`sha256:${'0'.repeat(64)}`, app);
    expect((await reportOf([node])).images.map(({ image }) => image)).toEqual([name]);
    const elsewhere = `registry.test/team/copy@${app.root}`;
    const report = await reportOf([full(a()).image(elsewhere, app)]);
    const image = report.images.find((one) => one.image === elsewhere)!;
    // Nobody has to have confirmed anything for a digest.
    expect(image).toMatchObject({ verdict: 'single-copy', confirmedAt: null });
  });

  test('buildReport puts the worst first, and of equals those in use', async () => {
    const image = (letter: string): string => `registry.test/${letter}:1`;
    const node = a();
    for (const letter of ['p', 'q', 'r']) {
      const tree = indexOf(letter);
      const without = letter === 'p' ? [] : [`${letter} layer 1`];
      node.image(image(letter), tree, { without, inUse: letter === 'r' });
      node.observe(image(letter), tree);
    }
    const { images, summary } = await reportOf([node]);
    expect(images.map((one) => one.image)).toEqual([image('r'), image('q'), image('p')]);
    expect(summary).toMatchObject({ images: 3, notServable: 2, singleCopy: 1 });
    expect(summary.servableShare).toBeCloseTo(1 / 3);
  });

  test('buildReport names a root that only one node could not read by what is wrong with it', async () => {
    const broken = { ...app, platforms: [], problem: 'it is no manifest' };
    const node = a().image(name, broken).observe(name, app).hold('app index', {});
    const image = only(await reportOf([node]));
    expect(codes(image)).toEqual(['unreadable']);
    expect(image.mediaType).toBe(MEDIA_TYPE.ociIndex);
    const wrong = a().image(name, broken).observe(name, app).hold('app index', { isCorrupt: true });
    expect(codes(only(await reportOf([wrong])))).toEqual(['corrupt']);
  });

  test('buildReport counts a cluster without images as one in which all can be served', async () => {
    expect((await reportOf([a()])).summary).toMatchObject({ images: 0, servableShare: 1 });
  });
});
