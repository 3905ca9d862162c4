import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../src/oci/digest.ts';
import { Observations } from '../../../src/agent/observations.ts';

const tag = {
  digest: digestOf(Buffer.from('a')),
  mediaType: 'application/vnd.oci.image.manifest.v1+json',
  sizeBytes: 1,
  observedAtMs: Date.UTC(2026, 6, 1),
};

describe('Observations', () => {
  it('Observations remembers the registries that confirmed something last', () => {
    const observations = new Observations({ maxNames: 10_000 });
    for (let n = 0; n < 1000; n += 1) observations.record(`old-${n}.test/a:1`, tag);
    observations.record('old-0.test/a:2', tag);
    observations.record('new.test/a:1', tag);
    expect(observations.hasSeen('new.test/b:7')).toBe(true);
    expect(observations.hasSeen('old-0.test/b:7')).toBe(true);
    expect(observations.hasSeen('old-1.test/b:7')).toBe(false);
    expect(observations.hasSeen('other.test/a:1')).toBe(false);
    expect([...observations.registries()].length).toBe(1000);
  });
});
