import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { digestAlgorithm, digestHex, digestOf, parseDigest } from '../../../src/oci/digest.ts';
import { digestLike, digests, valueOf } from './arbitraries.ts';

const EMPTY_SHA256 = 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';
const EMPTY_SHA512 =
  'sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce' +
  '47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e';

describe('parseDigest', () => {
  it('takes sha256 and sha512 in lowercase hex', () => {
    expect(valueOf(parseDigest(EMPTY_SHA256))).toBe(EMPTY_SHA256);
    expect(valueOf(parseDigest(EMPTY_SHA512))).toBe(EMPTY_SHA512);
  });

  const hex = 'a'.repeat(64);
  it.each([
    ['nothing', ''],
    ['the bare hex', hex],
    ['no hex', 'sha256:'],
    ['one digit too few', `sha256:${hex.slice(1)}`],
    ['one digit too many', `sha256:${hex}a`],
    ['the length of the other algorithm', `sha512:${hex}`],
    ['sha256 with the length of sha512', `sha256:${hex}${hex}`],
    ['capitals', `sha256:${hex.toUpperCase()}`],
    ['an algorithm in capitals', `SHA256:${hex}`],
    ['a letter beyond f', `sha256:${hex.slice(1)}g`],
    ['other algorithms', `sha384:${'a'.repeat(96)}`],
    ['an algorithm with a component', `sha256+b64:${hex}`],
    ['space before', ` sha256:${hex}`],
    ['space behind', `sha256:${hex} `],
    ['a line break behind', `sha256:${hex}\n`],
    ['a line break and more', `sha256:${hex}\r\nX-Evil: 1`],
    ['NUL inside', `sha256:${hex.slice(1)}\0`],
    ['NUL behind', `sha256:${hex}\0`],
    ['a path', `sha256:../../${'a'.repeat(58)}`],
    ['an encoded colon', `sha256%3A${hex}`],
    ['two digests', `sha256:${hex},sha256:${hex}`],
    ['fullwidth digits', `sha256:${'\uff11'.repeat(64)}`],
    ['ten kilobytes', `sha256:${'a'.repeat(10_000)}`],
  ])('refuses %s', (_, text) => {
    expect(parseDigest(text).ok).toBe(false);
  });

  it('takes exactly what its parts make up again', () => {
    fc.assert(
      fc.property(digests, (digest) => {
        const parsed = valueOf(parseDigest(digest));
        expect(`${digestAlgorithm(parsed)}:${digestHex(parsed)}`).toBe(digest);
      }),
    );
  });

  it('refuses a digest with any one character changed to a foreign one', () => {
    fc.assert(
      fc.property(
        digests,
        fc.nat(),
        fc.string({ unit: 'binary', minLength: 1, maxLength: 1 }),
        (digest, place, character) => {
          fc.pre(!/[0-9a-f]/.test(character));
          const index = place % digest.length;
          const changed = digest.slice(0, index) + character + digest.slice(index + 1);
          expect(parseDigest(changed).ok).toBe(changed === digest);
        },
      ),
    );
  });
});

describe('digestAlgorithm', () => {
  it('tells the two algorithms apart', () => {
    expect(digestAlgorithm(digestLike('0'))).toBe('sha256');
    expect(digestAlgorithm(digestLike('0', 'sha512'))).toBe('sha512');
  });
});

describe('digestHex', () => {
  it('leaves the algorithm away', () => {
    expect(digestHex(digestLike('b'))).toBe('b'.repeat(64));
    expect(digestHex(digestLike('c', 'sha512'))).toBe('c'.repeat(128));
  });
});

describe('digestOf', () => {
  it('gives the known digests of no bytes', () => {
    expect(digestOf(new Uint8Array())).toBe(EMPTY_SHA256);
    expect(digestOf(new Uint8Array(), 'sha512')).toBe(EMPTY_SHA512);
  });

  it('gives the known digest of "abc"', () => {
    expect(digestOf(new TextEncoder().encode('abc'))).toBe(
      'sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    );
  });

  it('gives what parseDigest takes', () => {
    fc.assert(
      fc.property(
        fc.uint8Array(),
        fc.constantFrom('sha256' as const, 'sha512' as const),
        (bytes, algorithm) => {
          expect(parseDigest(digestOf(bytes, algorithm)).ok).toBe(true);
        },
      ),
    );
  });
});
