import { X509Certificate, createPrivateKey } from 'node:crypto';
import type { Identity, Role } from './identity.ts';
import { addressesIn, rolesIn } from './identity-roles.ts';

/** What a certificate says, for people, logs and metrics. */
export interface CertificateFacts {
  readonly subject: string;
  readonly issuer: string;
  /** Milliseconds since the epoch. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** SHA-256 of the whole certificate, in hexadecimal with colons. */
  readonly fingerprint: string;
}

/** What an identity consists of. */
export interface IdentityFacts {
  readonly leaf: CertificateFacts;
  readonly roles: ReadonlySet<Role>;
  /** What it is known by beside its roles. */
  readonly addresses: readonly string[];
  /** The authorities that it trusts. */
  readonly authorities: readonly CertificateFacts[];
}

const block = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g;

/**
 * Takes apart a file of certificates in PEM.
 *
 * @throws when there is none in it, or one that cannot be read
 */
export function certificatesIn(pem: Buffer | string): X509Certificate[] {
  const found = pem.toString().match(block) ?? [];
  if (found.length === 0) throw new Error('Cannot find a certificate in it');
  return found.map((text) => new X509Certificate(text));
}

/** What one certificate says. */
export function factsOf(certificate: X509Certificate): CertificateFacts {
  return {
    subject: oneLine(certificate.subject),
    issuer: oneLine(certificate.issuer),
    notBeforeMs: Date.parse(certificate.validFrom),
    notAfterMs: Date.parse(certificate.validTo),
    fingerprint: certificate.fingerprint256,
  };
}

/**
 * Looks whether an identity can be used: its parts can be read, the key is the certificate's own,
 * the certificate is by one of its authorities, names a role and is valid at this time.
 *
 * @throws an error that says what is wrong, without anything of the key
 */
export function checkIdentity(
  identity: Identity,
  options: { readonly nowMs: number },
): IdentityFacts {
  const chain = part('certificate', () => certificatesIn(identity.certificate));
  const authorities = part('ca', () => certificatesIn(identity.ca));
  const [leaf] = chain as [X509Certificate];
  // Parsers of keys may quote what they were given.
  const key = part('key', () => createPrivateKey(identity.key), 'it is no private key in PEM');
  if (!leaf.checkPrivateKey(key)) {
    throw new Error('Cannot use the identity: the key is not that of the certificate');
  }
  const facts = factsOf(leaf);
  const roles = rolesIn(leaf.subjectAltName);
  if (roles.size === 0) throw unusable(facts, 'it names no role of Salvor');
  if (facts.notAfterMs <= options.nowMs)
    throw unusable(facts, `it ended ${time(facts.notAfterMs)}`);
  if (facts.notBeforeMs > options.nowMs) {
    throw unusable(facts, `it is not valid before ${time(facts.notBeforeMs)}`);
  }
  if (!isIssuedBy(chain, authorities)) {
    throw unusable(facts, 'none of the authorities that it trusts has issued it');
  }
  const addresses = addressesIn(leaf.subjectAltName);
  return { leaf: facts, roles, addresses, authorities: authorities.map(factsOf) };
}

/** Whether a chain, the leaf first, ends at one of the authorities. */
export function isIssuedBy(
  chain: readonly X509Certificate[],
  authorities: readonly X509Certificate[],
): boolean {
  const last = chain.at(-1);
  const isChain = chain.every((certificate, index) => {
    const next = chain[index + 1];
    return next === undefined || isSignedBy(certificate, next);
  });
  if (last === undefined || !isChain) return false;
  return authorities.some(
    (authority) => authority.fingerprint256 === last.fingerprint256 || isSignedBy(last, authority),
  );
}

function isSignedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

function part<T>(name: keyof Identity, read: () => T, why?: string): T {
  try {
    return read();
  } catch (error) {
    const said = why ?? (error instanceof Error ? error.message : String(error));
    throw new Error(`Cannot read tls.${name}: ${said}`);
  }
}

function unusable({ subject }: CertificateFacts, why: string): Error {
  return new Error(`Cannot use the certificate ${subject}: ${why}`);
}

function time(ms: number): string {
  return new Date(ms).toISOString();
}

function oneLine(name: string): string {
  return name.replaceAll('\n', ', ');
}
