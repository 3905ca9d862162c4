import { X509Certificate, createPrivateKey } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { PeerCertificate, SecureContextOptions } from 'node:tls';
import { rolesIn, type Role } from './identity-roles.ts';

export { roleName, type Role } from './identity-roles.ts';

/**
 * AES with 128 bits first: as safe for the lifetime of these bytes, and a quarter less work than
 * 256, which shows where every byte of a blob passes through it twice.
 */
const CIPHERS = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256';

/**
 * For a client to get through TLS, milliseconds. Nodes need a few round trips; Node.js would wait
 * for two minutes, and hold some 50 KiB meanwhile.
 */
export const HANDSHAKE_MS = 5000;

const READ_TRIES = 10;
const READ_PAUSE_MS = 100;

/** A process's own certificate and the authority that it trusts, PEM. */
export interface Identity {
  readonly ca: Buffer;
  readonly certificate: Buffer;
  readonly key: Buffer;
}

/** What can take another identity; open connections go on with the old one. */
export interface Renewable {
  /** @throws when TLS cannot be made of it; the old one stays */
  renew(identity: Identity): void;
}

/**
 * Reads an identity from its three PEM files. Where key and certificate are not of each other it
 * looks again for a while, as somebody may just be replacing them.
 *
 * @throws when a file cannot be read, or they stay so; the message holds nothing of the key
 */
export async function readIdentity(paths: {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}): Promise<Identity> {
  for (let tries = 1; ; tries += 1) {
    const [ca, certificate, key] = await Promise.all(
      [paths.ca, paths.certificate, paths.key].map((path) => readFile(path)),
    );
    const identity = { ca, certificate, key } as Identity;
    if (isPair(identity)) return identity;
    if (tries === READ_TRIES) {
      throw new Error(
        `Cannot use the identity: the key in ${paths.key} is not that of the certificate in ` +
          paths.certificate,
      );
    }
    await delay(READ_PAUSE_MS);
  }
}

function isPair({ certificate, key }: Identity): boolean {
  try {
    return new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key));
  } catch {
    return false;
  }
}

/** @returns every role that a peer's verified certificate names */
export function rolesOf(certificate: PeerCertificate | undefined): ReadonlySet<Role> {
  return rolesIn(certificate?.subjectaltname);
}

/** What both ends of a connection are set up with. */
export function tlsOptionsOf(identity: Identity): SecureContextOptions {
  return {
    ca: identity.ca,
    cert: identity.certificate,
    key: identity.key,
    minVersion: 'TLSv1.3',
    ciphers: CIPHERS,
  };
}
