import { describe, expect, test } from 'vitest';
import { keptContent, type NamespaceContent } from '../../../../src/agent/containerd/retention.ts';

const nowMs = Date.UTC(2026, 0, 1);
const ref = 'containerd.io/gc.ref.content';
const expiry = 'containerd.io/gc.expire';

function kept(content: {
  images?: NamespaceContent['images'];
  labels?: Record<string, Record<string, string>>;
  leases?: NamespaceContent['leases'];
}): string[] {
  const { images = [], labels = {}, leases = [] } = content;
  const namespace = { images, leases, labels: new Map(Object.entries(labels)) };
  return [...keptContent(namespace, nowMs)].sort();
}

describe('keptContent', () => {
  test('keptContent follows labels from images through every level, circles too', () => {
    const labels = {
      index: { [`${ref}.m.0`]: 'manifest', [`${ref}.m.1`]: 'absent' },
      manifest: { [`${ref}.config`]: 'config', [`${ref}/x`]: 'layer', [ref]: 'index' },
      orphan: { [`${ref}.l.0`]: 'orphan-layer' },
    };
    const images = [{ digest: 'index', labels: {} }];
    expect(kept({ images, labels })).toEqual(['absent', 'config', 'index', 'layer', 'manifest']);
  });

  test('keptContent takes no other label for a reference', () => {
    const labels = {
      a: { [`${ref}s.l.0`]: 'b', 'containerd.io/gc.ref.snapshot.x': 'c', other: 'd' },
    };
    expect(kept({ images: [{ digest: 'a', labels: {} }], labels })).toEqual(['a']);
  });

  test('keptContent leaves an image out that has expired, and keeps what its labels refer to before', () => {
    const at = (offsetMs: number) => ({ [expiry]: new Date(nowMs + offsetMs).toISOString() });
    expect(kept({ images: [{ digest: 'old', labels: at(-1000) }] })).toEqual([]);
    const labels = { ...at(1000), [`${ref}.x`]: 'more' };
    expect(kept({ images: [{ digest: 'new', labels }] })).toEqual(['more', 'new']);
  });

  test('keptContent keeps what a live lease holds, and below it unless the lease is flat', () => {
    const labels = { a: { [`${ref}.l.0`]: 'a-child' }, b: { [`${ref}.l.0`]: 'b-child' } };
    const past = new Date(nowMs - 1000).toISOString();
    const leases = [
      { labels: {}, content: ['a'] },
      { labels: { 'containerd.io/gc.flat': '' }, content: ['b'] },
      { labels: { [expiry]: past }, content: ['c'] },
      { labels: { [expiry]: 'no time' }, content: ['d'] },
    ];
    expect(kept({ labels, leases })).toEqual(['a', 'a-child', 'b', 'd']);
  });

  test('keptContent takes a root label for a root', () => {
    const labels = { a: { 'containerd.io/gc.root': 'x', [`${ref}.l.0`]: 'b' }, c: {} };
    expect(kept({ labels })).toEqual(['a', 'b']);
  });
});
