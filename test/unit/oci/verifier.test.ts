import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { digestOf } from '../../../src/oci/digest.ts';
import { DigestVerifier } from '../../../src/oci/verifier.ts';

const algorithms = fc.constantFrom('sha256' as const, 'sha512' as const);

describe('DigestVerifier', () => {
  it('accepts the right bytes however they are cut', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array(), { maxLength: 8 }), algorithms, (chunks, algorithm) => {
        const whole = Buffer.concat(chunks);
        const verifier = new DigestVerifier(digestOf(whole, algorithm));
        for (const chunk of chunks) {
          verifier.update(chunk);
        }
        expect(verifier.receivedBytes).toBe(whole.byteLength);
        expect(verifier.matches()).toBe(true);
      }),
    );
  });

  it('refuses bytes with one bit turned', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1 }),
        fc.nat(),
        fc.integer({ min: 0, max: 7 }),
        algorithms,
        (bytes, place, bit, algorithm) => {
          const wrong = Uint8Array.from(bytes);
          const index = place % wrong.length;
          wrong[index] = wrong[index]! ^ (1 << bit);
          const verifier = new DigestVerifier(digestOf(bytes, algorithm));
          verifier.update(wrong);
          expect(verifier.matches()).toBe(false);
        },
      ),
    );
  });

  it('refuses bytes that are cut short, doubled or missing', () => {
    const bytes = new TextEncoder().encode('layer');
    for (const wrong of [bytes.subarray(1), bytes.subarray(0, -1), Buffer.concat([bytes, bytes])]) {
      const verifier = new DigestVerifier(digestOf(bytes));
      verifier.update(wrong);
      expect(verifier.matches(), `${wrong.byteLength} bytes`).toBe(false);
    }
    expect(new DigestVerifier(digestOf(bytes)).matches()).toBe(false);
  });

  it('sees only the view of a larger buffer', () => {
    const buffer = new Uint8Array([9, 1, 2, 3, 9]);
    const verifier = new DigestVerifier(digestOf(new Uint8Array([1, 2, 3])));
    verifier.update(buffer.subarray(1, 4));
    expect(verifier.receivedBytes).toBe(3);
    expect(verifier.matches()).toBe(true);
  });

  it('gives the same verdict again', () => {
    const right = new DigestVerifier(digestOf(new Uint8Array()));
    expect([right.matches(), right.matches()]).toEqual([true, true]);
    const wrong = new DigestVerifier(digestOf(new Uint8Array([1])));
    expect([wrong.matches(), wrong.matches()]).toEqual([false, false]);
  });

  it('throws on bytes after the verdict and keeps the verdict', () => {
    const verifier = new DigestVerifier(digestOf(new Uint8Array()));
    verifier.matches();
    expect(() => verifier.update(new Uint8Array([1]))).toThrow(/^Cannot hash more bytes: /);
    expect(verifier.receivedBytes).toBe(0);
    expect(verifier.matches()).toBe(true);
  });
});
