// tsyringe, which the certificate library stands on, wants it loaded first.
import 'reflect-metadata';
import { randomBytes, webcrypto } from 'node:crypto';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
  cryptoProvider,
} from '@peculiar/x509';
import { roleName, type Identity, type Role } from './identity.ts';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const DAY_MS = 86_400_000;
// Clocks of nodes differ; a certificate made a moment ago must already be valid everywhere.
const BACKDATE_MS = 3_600_000;

/** A certificate authority that exists only to issue the identities of one cluster. */
export interface Authority {
  readonly certificate: X509Certificate;
  readonly keys: webcrypto.CryptoKeyPair;
}

/**
 * Makes a new certificate authority (ECDSA P-256).
 *
 * @param options.validMs lifetime; ten years unless told
 * @param options.nowMs the present, in milliseconds since the epoch
 */
export async function createAuthority(
  options: { readonly validMs?: number; readonly nowMs?: number } = {},
): Promise<Authority> {
  cryptoProvider.set(webcrypto as unknown as Parameters<typeof cryptoProvider.set>[0]);
  const keys = await generateKeys();
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: 'CN=Salvor CA',
    ...validity(options.validMs ?? 3650 * DAY_MS, options.nowMs),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate, keys };
}

/**
 * Issues the identity of a process.
 *
 * @param roles what it may act as
 * @param options.validMs lifetime; one year unless told
 */
export async function issueIdentity(
  authority: Authority,
  roles: readonly Role[],
  options: { readonly validMs?: number; readonly nowMs?: number } = {},
): Promise<Identity> {
  const keys = await generateKeys();
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    issuer: authority.certificate.subject,
    subject: `CN=salvor ${roles.join(' ')}`,
    ...validity(options.validMs ?? 365 * DAY_MS, options.nowMs),
    publicKey: keys.publicKey,
    signingKey: authority.keys.privateKey,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
      new SubjectAlternativeNameExtension(
        roles.map((role) => ({ type: 'dns', value: roleName(role) })),
      ),
      await AuthorityKeyIdentifierExtension.create(authority.certificate.publicKey),
    ],
  });
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
  return {
    ca: Buffer.from(authority.certificate.toString('pem')),
    certificate: Buffer.from(certificate.toString('pem')),
    key: Buffer.from(PemConverter.encode(pkcs8, 'PRIVATE KEY')),
  };
}

async function generateKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
}

function validity(validMs: number, nowMs = Date.now()): { notBefore: Date; notAfter: Date } {
  return { notBefore: new Date(nowMs - BACKDATE_MS), notAfter: new Date(nowMs + validMs) };
}

function serialNumber(): string {
  const bytes = randomBytes(16);
  // A serial number is a positive integer: RFC 5280, 4.1.2.2.
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes.toString('hex');
}
