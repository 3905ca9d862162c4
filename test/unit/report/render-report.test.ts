import { describe, expect, test } from 'vitest';
import { filterReport } from '../../../src/report/filter-report.ts';
import { renderReport } from '../../../src/report/render-report.ts';
import type { Report } from '../../../src/report/report.ts';
import { amd64, arm64, digest, indexOf, Node, reportOf } from './report-scene.ts';

const image = (letter: string): string => `registry.test/team/${letter}:1`;

/** p is on a and b; q on a alone; r lacks a layer, for two platforms. */
async function threeImages(): Promise<Report> {
  const [p, q, r] = [indexOf('p'), indexOf('q'), indexOf('r', [amd64, arm64])];
  const a = new Node('a').image(image('p'), p).image(image('q'), q, { inUse: true });
  a.image(image('r'), r, { without: ['r amd64 layer 1', 'r arm64 layer 1'] });
  a.observe(image('p'), p).observe(image('q'), q).observe(image('r'), r);
  const report = await reportOf([a, new Node('b').image(image('p'), p)]);
  const members = [
    { node: 'a', state: 'answered' as const, warnings: [{ code: 'x', message: 'it is lazy' }] },
    { node: 'b', state: 'answered' as const, warnings: [] },
    { node: 'c', state: 'too-old' as const, error: 'unimplemented', warnings: [] },
    { node: 'd', state: 'no-answer' as const, error: 'connection refused', warnings: [] },
  ];
  return { ...report, members, isComplete: false };
}

const rows = ({ images }: Report): string[] =>
  images.map((one) => `${one.image.slice(19, 20)} ${one.platform}`);

describe('filterReport', () => {
  test.each([
    [{ image: 'registry.test/*/q:*' }, ['q linux/amd64']],
    [{ platform: 'linux/arm64' }, ['r linux/arm64']],
    [{ platform: 'linux/arm' }, []],
    [{ platform: 'linux' }, ['r linux/amd64', 'r linux/arm64', 'q linux/amd64', 'p linux/amd64']],
    [{ node: 'b' }, ['p linux/amd64']],
    [{ verdicts: ['survives', 'single-copy'] as const }, ['q linux/amd64', 'p linux/amd64']],
    [{ node: 'a', image: image('r'), platform: 'linux/amd64' }, ['r linux/amd64']],
  ])('filterReport leaves what is wanted: %o', async (filter, expected) => {
    expect(rows(filterReport(await threeImages(), filter))).toEqual(expected);
  });

  test('filterReport counts, and lists blobs, of what is left alone', async () => {
    const filtered = filterReport(await threeImages(), { image: image('p') });
    expect(filtered.summary).toMatchObject({ images: 1, survives: 1, servableShare: 1 });
    expect(Object.keys(filtered.blobs)).toHaveLength(5);
    expect(filtered.blobs[digest('p config')]?.nodes).toEqual(['a', 'b']);
  });
});

describe('renderReport', () => {
  test('renderReport tells people what is wrong first', async () => {
    const lines = renderReport(await threeImages(), { maxImages: 10 }).split('\n');
    expect(lines).toEqual([
      '2 of 4 images (50 %) can be served without their registries: 1 survive the loss of any ' +
        'node, 1 are on one node alone, 2 cannot be served',
      '2 of 4 nodes answered at 2026-06-01T00:00:00.000Z; INCOMPLETE: what the others have is ' +
        'not counted',
      '! a: it is lazy',
      '! c: its agent is too old for reports',
      '! d: connection refused',
      '',
      'NOT SERVABLE: a pull by a new node would fail',
      `  ${image('r')}  linux/amd64, 50 B, confirmed 2026-05-31T00:00Z, on a (partial)`,
      `      layer-missing: no node has the layer ${digest('r amd64 layer 1')}`,
      `  ${image('r')}  linux/arm64, 50 B, confirmed 2026-05-31T00:00Z, on a (partial)`,
      `      layer-missing: no node has the layer ${digest('r arm64 layer 1')}`,
      '',
      'SINGLE COPY: servable as long as one node is there',
      `  ${image('q')}  linux/amd64, 50 B, in use, confirmed 2026-05-31T00:00Z, on a`,
      expect.stringMatching(/^ {6}one-node: only a has 5 blobs \(sha256:.*, …\)$/),
      '',
      'SURVIVES: every blob is on two nodes or more',
      `  ${image('p')}  linux/amd64, 50 B, confirmed 2026-05-31T00:00Z, on a, b`,
      '',
    ]);
  });

  test('renderReport says how many it does not show', async () => {
    const text = renderReport(await threeImages(), { maxImages: 1 });
    expect(text).toContain('… and 3 more: --all shows them');
    expect(text).not.toContain('SURVIVES');
  });

  test('renderReport never rounds a share up to all', async () => {
    const report = await threeImages();
    const summary = { ...report.summary, servableShare: 0.99999 };
    expect(renderReport({ ...report, summary }, { maxImages: 0 })).toContain('(99.9 %)');
  });
});
