import { create } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../src/oci/digest.ts';
import { safeNumber, tagFromMessage, tagToMessage } from '../../../src/rpc/agent-protocol.ts';
import { TagSchema } from '../../../src/rpc/gen/salvor/agent/v1/agent_pb.ts';

const digest = digestOf(Buffer.from('x'));
const good = { digest, mediaType: 'a/b', sizeBytes: 5n };

describe('tagFromMessage', () => {
  it('tagFromMessage reads what tagToMessage writes', () => {
    const times = fc.option(fc.nat(8.64e15), { nil: undefined });
    fc.assert(
      fc.property(fc.maxSafeNat(), times, times, (sizeBytes, observedAtMs, recordedAtMs) => {
        const tag = {
          digest,
          mediaType: 'a/b',
          sizeBytes,
          ...(observedAtMs === undefined ? {} : { observedAtMs }),
          ...(recordedAtMs === undefined ? {} : { recordedAtMs }),
        };
        expect(tagFromMessage(tagToMessage(tag))).toEqual(tag);
      }),
    );
  });

  it.each([
    ['no digest', { ...good, digest: '' }],
    ['a digest of no kind', { ...good, digest: 'md5:0' }],
    ['no type', { ...good, mediaType: '' }],
    ['a negative size', { ...good, sizeBytes: -1n }],
    ['a size beyond exact numbers', { ...good, sizeBytes: 2n ** 60n }],
  ])('tagFromMessage ignores a statement with %s', (_, fields) => {
    expect(tagFromMessage(create(TagSchema, fields))).toBeUndefined();
  });

  it.each([
    ['far behind every calendar', { seconds: 2n ** 62n, nanos: 0 }],
    ['before all time', { seconds: -(2n ** 62n), nanos: 0 }],
    ['before 1970', { seconds: -1n, nanos: 0 }],
  ])('tagFromMessage takes a time %s for none', (_, time) => {
    const observedAt = { ...time, $typeName: 'google.protobuf.Timestamp' as const };
    const tag = tagFromMessage(create(TagSchema, { ...good, observedAt, recordedAt: observedAt }));
    expect(tag).toEqual({ digest, mediaType: 'a/b', sizeBytes: 5 });
  });
});

describe('safeNumber', () => {
  it('safeNumber takes what is exact and no more', () => {
    expect(safeNumber(0n)).toBe(0);
    expect(safeNumber(BigInt(Number.MAX_SAFE_INTEGER))).toBe(Number.MAX_SAFE_INTEGER);
    for (const value of [-1n, BigInt(Number.MAX_SAFE_INTEGER) + 1n, 2n ** 63n - 1n]) {
      expect(() => safeNumber(value)).toThrow(RangeError);
    }
  });
});
