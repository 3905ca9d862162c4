import { readFile } from 'node:fs/promises';
import { checkServerIdentity, createSecureContext, type PeerCertificate } from 'node:tls';
import { ChannelCredentials, ServerCredentials, credentials } from '@grpc/grpc-js';

/**
 * AES with 128 bits first: as safe for the lifetime of these bytes, and a quarter less work than
 * 256, which shows where every byte of a blob passes through it twice.
 */
const CIPHERS = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256';

/** What a process is, as its certificate says it. */
export type Role = 'agent' | 'registry';

/** A process's own certificate and the authority that it trusts, PEM. */
export interface Identity {
  readonly ca: Buffer;
  readonly certificate: Buffer;
  readonly key: Buffer;
}

/**
 * The DNS name that stands for a role. Certificates carry it as a subject alternative name, so
 * that any issuer can make them and addresses may change.
 */
export function roleName(role: Role): string {
  return `${role}.salvor.internal`;
}

/**
 * Reads an identity from its three PEM files.
 *
 * @throws when a file cannot be read
 */
export async function readIdentity(paths: {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}): Promise<Identity> {
  const [ca, certificate, key] = await Promise.all(
    [paths.ca, paths.certificate, paths.key].map((path) => readFile(path)),
  );
  return { ca, certificate, key } as Identity;
}

/**
 * Credentials of a server that only talks TLS 1.3 and only to clients of the same authority.
 */
export function mutualServerCredentials(identity: Identity): ServerCredentials {
  return new MutualServerCredentials(identity);
}

/**
 * Credentials of a client that accepts only a server of the same authority with the role "agent",
 * whatever address it was dialled at.
 */
export function mutualChannelCredentials(identity: Identity): ChannelCredentials {
  const context = createSecureContext({
    ca: identity.ca,
    cert: identity.certificate,
    key: identity.key,
    minVersion: 'TLSv1.3',
    ciphers: CIPHERS,
  });
  return credentials.createFromSecureContext(context, {
    checkServerIdentity: (_host: string, certificate: PeerCertificate) =>
      checkServerIdentity(roleName('agent'), certificate),
  });
}

/** @returns every role that a peer's verified certificate names */
export function rolesOf(certificate: PeerCertificate | undefined): ReadonlySet<Role> {
  const names = (certificate?.subjectaltname ?? '').split(', ');
  const roles: Role[] = ['agent', 'registry'];
  return new Set(roles.filter((role) => names.includes(`DNS:${roleName(role)}`)));
}

class MutualServerCredentials extends ServerCredentials {
  readonly #identity: Identity;

  constructor(identity: Identity) {
    super(
      { requestCert: true, rejectUnauthorized: true },
      {
        ca: identity.ca,
        cert: identity.certificate,
        key: identity.key,
        minVersion: 'TLSv1.3',
        ciphers: CIPHERS,
      },
    );
    this.#identity = identity;
  }

  override _equals(other: ServerCredentials): boolean {
    return other instanceof MutualServerCredentials && other.#identity === this.#identity;
  }
}
