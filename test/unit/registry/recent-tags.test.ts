import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../src/oci/digest.ts';
import { RecentTags } from '../../../src/registry/recent-tags.ts';

const name = 'registry.test/team/app:1';
const outage = { sinceMs: 5 };
const bytes = Buffer.from('{}');
const tag = { manifest: { digest: digestOf(bytes), mediaType: 'a/b', bytes }, observedAtMs: 3 };

function scene() {
  let nowMs = 1_000_000;
  const tags = new RecentTags({ now: () => nowMs });
  return { tags, pass: (ms: number) => (nowMs += ms) };
}

describe('RecentTags', () => {
  it('RecentTags knows for a second what a tag was found to name, and keeps no bytes', () => {
    const { tags, pass } = scene();
    expect(tags.get(name, outage)).toBeUndefined();
    tags.put(name, outage, tag);
    pass(999);
    const found = tags.get(name, outage);
    expect(found?.manifest).toEqual({ digest: digestOf(bytes), mediaType: 'a/b' });
    expect(found?.observedAtMs).toBe(3);
    pass(1);
    expect(tags.get(name, outage)).toBeUndefined();
  });

  it('RecentTags believes nothing from an earlier outage, or of another tag', () => {
    const { tags } = scene();
    tags.put(name, outage, tag);
    expect(tags.get(name, { sinceMs: 6 })).toBeUndefined();
    expect(tags.get(`${name}0`, outage)).toBeUndefined();
  });

  it('RecentTags forgets the oldest of more than a thousand', () => {
    const { tags } = scene();
    for (let index = 0; index <= 1000; index += 1) tags.put(`${name}-${index}`, outage, tag);
    expect(tags.get(`${name}-0`, outage)).toBeUndefined();
    expect(tags.get(`${name}-1000`, outage)).toBeDefined();
  });
});
