import { createHash } from 'node:crypto';

import type { Result } from './result.ts';

/** A checked "sha256:<64 lowercase hex>" or "sha512:<128 lowercase hex>". */
export type Digest = string & { readonly __brand: 'Digest' };

export type DigestAlgorithm = 'sha256' | 'sha512';

const DIGEST_PATTERN = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;
const MAX_DIGEST_CHARS = 'sha512:'.length + 128;

/**
 * Reads a digest as the OCI image specification writes it. Only the two registered algorithms are
 * taken, because only those can be verified.
 */
export function parseDigest(text: string): Result<Digest> {
  if (text.length > MAX_DIGEST_CHARS || !DIGEST_PATTERN.test(text)) {
    return { ok: false, reason: 'not a sha256 or sha512 digest in lowercase hex' };
  }
  return { ok: true, value: text as Digest };
}

/** The algorithm that a digest names. */
export function digestAlgorithm(digest: Digest): DigestAlgorithm {
  return digest.startsWith('sha256:') ? 'sha256' : 'sha512';
}

/** The hex part of a digest, without the algorithm: 64 or 128 characters. */
export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/** The digest of `bytes`, computed at once; for anything large use a DigestVerifier. */
export function digestOf(bytes: Uint8Array, algorithm: DigestAlgorithm = 'sha256'): Digest {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}` as Digest;
}
