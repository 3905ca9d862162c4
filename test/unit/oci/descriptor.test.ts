import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { parseDescriptor } from '../../../src/oci/descriptor.ts';
import { digestLike, digests, valueOf } from './arbitraries.ts';

const DIGEST = digestLike('a');
const PLAIN = { mediaType: 'application/x', digest: DIGEST, size: 7 };

describe('parseDescriptor', () => {
  it('reads what every descriptor has', () => {
    expect(valueOf(parseDescriptor(PLAIN))).toEqual({
      mediaType: 'application/x',
      digest: DIGEST,
      sizeBytes: 7,
    });
  });

  it('reads what a descriptor may have', () => {
    const json: unknown = {
      ...PLAIN,
      size: 0,
      platform: {
        os: 'windows',
        architecture: 'arm64',
        variant: 'v8',
        'os.version': '10.0.1',
        'os.features': ['win32k'],
      },
      urls: ['https://example.com/x'],
      annotations: { a: 'b' },
      artifactType: 'application/y',
      data: 'e30=',
    };
    expect(valueOf(parseDescriptor(json))).toEqual({
      mediaType: 'application/x',
      digest: DIGEST,
      sizeBytes: 0,
      platform: { os: 'windows', architecture: 'arm64', variant: 'v8', osVersion: '10.0.1' },
      urls: ['https://example.com/x'],
      annotations: { a: 'b' },
      artifactType: 'application/y',
    });
  });

  it('leaves out optional parts that make no sense', () => {
    const json: unknown = {
      ...PLAIN,
      platform: { os: 1, architecture: 'amd64' },
      urls: 'https://example.com',
      annotations: ['a'],
      artifactType: 5,
    };
    expect(valueOf(parseDescriptor(json))).toEqual(valueOf(parseDescriptor(PLAIN)));
    const partly: unknown = {
      ...PLAIN,
      platform: { os: 'linux', architecture: 'amd64', variant: '', 'os.version': null },
      urls: ['x', 1, null],
      annotations: { a: 'b', c: 1 },
    };
    expect(valueOf(parseDescriptor(partly))).toEqual({
      ...valueOf(parseDescriptor(PLAIN)),
      platform: { os: 'linux', architecture: 'amd64' },
      urls: ['x'],
      annotations: { a: 'b' },
    });
  });

  it('keeps an annotation called __proto__ a mere annotation', () => {
    const json: unknown = JSON.parse(
      `{"mediaType":"a/b","digest":"${DIGEST}","size":1,"annotations":{"__proto__":"x"}}`,
    );
    const { annotations } = valueOf(parseDescriptor(json));
    expect(Object.entries(annotations ?? {})).toEqual([['__proto__', 'x']]);
    expect(Object.getPrototypeOf(annotations)).toBe(Object.prototype);
  });

  it.each<[string, unknown]>([
    ['null', null],
    ['a text', DIGEST],
    ['a list', [PLAIN]],
    ['nothing', {}],
    ['no media type', { ...PLAIN, mediaType: undefined }],
    ['an empty media type', { ...PLAIN, mediaType: '' }],
    ['a media type that is no text', { ...PLAIN, mediaType: 1 }],
    ['no digest', { ...PLAIN, digest: undefined }],
    ['a digest that is no text', { ...PLAIN, digest: [DIGEST] }],
    ['a digest with a path', { ...PLAIN, digest: 'sha256:../../etc/passwd' }],
    ['a digest in capitals', { ...PLAIN, digest: DIGEST.toUpperCase() }],
    ['no size', { ...PLAIN, size: undefined }],
    ['a size in words', { ...PLAIN, size: '7' }],
    ['a negative size', { ...PLAIN, size: -1 }],
    ['half a byte', { ...PLAIN, size: 0.5 }],
    ['a size beyond exact numbers', { ...PLAIN, size: 2 ** 53 }],
    ['an infinite size', { ...PLAIN, size: 1e400 }],
  ])('refuses %s', (_, json) => {
    expect(parseDescriptor(json).ok).toBe(false);
  });

  it('never throws on any JSON, nor lets a bad digest or size pass', () => {
    const values = fc.oneof(fc.jsonValue(), digests, fc.integer());
    fc.assert(
      fc.property(
        fc.dictionary(
          fc.constantFrom('mediaType', 'digest', 'size', 'platform', 'urls', 'annotations'),
          values,
        ),
        (json) => {
          const result = parseDescriptor(json);
          if (result.ok) {
            expect(result.value.digest).toMatch(/^sha(256|512):[0-9a-f]+$/);
            expect(result.value.sizeBytes).toBeGreaterThanOrEqual(0);
          } else {
            expect(result.reason).not.toBe('');
          }
        },
      ),
    );
  });
});
