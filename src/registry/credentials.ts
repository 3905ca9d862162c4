import { createHash } from 'node:crypto';

/**
 * Stands for a request's credentials in keys of caches, without being them.
 *
 * @param salt of this process, so that the value means nothing elsewhere
 */
export function credentialsFingerprint(authorization: string | undefined, salt: Buffer): string {
  if (authorization === undefined) return 'anonymous';
  return createHash('sha256').update(salt).update(authorization).digest('base64url');
}
