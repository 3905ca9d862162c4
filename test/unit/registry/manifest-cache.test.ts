import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../src/oci/digest.ts';
import { ManifestCache, type CachedManifest } from '../../../src/registry/manifest-cache.ts';

const CONSENT_MS = 60_000;

function manifest(text: string): CachedManifest {
  const bytes = Buffer.from(text);
  return {
    digest: digestOf(bytes),
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    bytes,
  };
}

function cacheAt(time: { ms: number }, maxBytes = 100_000): ManifestCache {
  return new ManifestCache({ maxBytes, consentMs: CONSENT_MS }, { now: () => time.ms });
}

const one = manifest('{"one":1}');
const mine = { repository: 'registry.test/a', credentials: 'me' };

describe('ManifestCache', () => {
  it('ManifestCache gives a manifest back to whom the upstream gave it', () => {
    const cache = cacheAt({ ms: 0 });
    cache.put(one, mine);
    expect(cache.getConsented(one.digest, mine)).toBe(one);
    expect(cache.get(one.digest)).toBe(one);
    expect(cache.has(one.digest)).toBe(true);
  });

  it('ManifestCache knows no consent for other credentials or another repository', () => {
    const cache = cacheAt({ ms: 0 });
    cache.put(one, mine);
    expect(cache.getConsented(one.digest, { ...mine, credentials: 'you' })).toBeUndefined();
    expect(
      cache.getConsented(one.digest, { ...mine, repository: 'registry.test/b' }),
    ).toBeUndefined();
  });

  it('ManifestCache knows no consent for what a node gave', () => {
    const cache = cacheAt({ ms: 0 });
    cache.put(one);
    expect(cache.get(one.digest)).toBe(one);
    expect(cache.getConsented(one.digest, mine)).toBeUndefined();
  });

  it('ManifestCache forgets a consent after its time, not the manifest', () => {
    const time = { ms: 0 };
    const cache = cacheAt(time);
    cache.put(one, mine);
    time.ms = CONSENT_MS - 1;
    expect(cache.getConsented(one.digest, mine)).toBe(one);
    time.ms = CONSENT_MS;
    expect(cache.getConsented(one.digest, mine)).toBeUndefined();
    expect(cache.get(one.digest)).toBe(one);
    cache.put(one, mine);
    expect(cache.getConsented(one.digest, mine)).toBe(one);
  });

  it('ManifestCache keeps a consent when a node gives the same manifest later', () => {
    const cache = cacheAt({ ms: 0 });
    cache.put(one, mine);
    cache.put(one);
    expect(cache.getConsented(one.digest, mine)).toBeDefined();
  });

  it('ManifestCache keeps to its bound of bytes and of consents', () => {
    const cache = cacheAt({ ms: 0 }, 10_000);
    const many = Array.from({ length: 50 }, (_, n) => manifest(`${n}`.padEnd(1000)));
    for (const each of many) cache.put(each, mine);
    const kept = many.filter(({ digest }) => cache.has(digest));
    expect(kept.length).toBe(6);
    expect(kept).toEqual(many.slice(-6));
    const huge = manifest(' '.repeat(20_000));
    cache.put(huge, mine);
    expect(cache.has(huge.digest)).toBe(false);

    for (let n = 0; n < 1000; n += 1) cache.put(one, { ...mine, credentials: `c${n}` });
    const remembered = Array.from({ length: 1000 }, (_, n) =>
      cache.getConsented(one.digest, { ...mine, credentials: `c${n}` }),
    ).filter((found) => found !== undefined);
    expect(remembered.length).toBeLessThanOrEqual(64);
    expect(cache.getConsented(one.digest, { ...mine, credentials: 'c999' })).toBe(one);
  });

  it('ManifestCache keeps nothing when it has no room at all', () => {
    const cache = cacheAt({ ms: 0 }, 0);
    cache.put(one, mine);
    expect(cache.has(one.digest)).toBe(false);
  });
});
