// tsyringe, which the certificate library stands on, wants it loaded first.
import 'reflect-metadata';
import { randomBytes, webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
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
    // Two of them may have to be told apart while one takes the place of the other.
    name: `CN=Salvor CA ${randomBytes(4).toString('hex')}`,
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
 * @param options.addresses DNS names and IP addresses that it is known by beside its roles, to
 *   clients that look for those
 */
export async function issueIdentity(
  authority: Authority,
  roles: readonly Role[],
  options: {
    readonly validMs?: number;
    readonly nowMs?: number;
    readonly addresses?: readonly string[];
  } = {},
): Promise<Identity> {
  const isServer = roles.some((role) => role !== 'bootstrap');
  const { addresses = [] } = options;
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
      new ExtendedKeyUsageExtension([
        ...(isServer ? [ExtendedKeyUsage.serverAuth] : []),
        ExtendedKeyUsage.clientAuth,
      ]),
      new SubjectAlternativeNameExtension([
        ...roles.map((role) => ({ type: 'dns' as const, value: roleName(role) })),
        ...addresses.map((value) => ({
          type: isIP(value) === 0 ? ('dns' as const) : ('ip' as const),
          value,
        })),
      ]),
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

/** An authority as it is kept: PEM. */
export interface AuthorityPem {
  readonly certificate: string;
  readonly key: string;
}

/** Writes an authority, its private key included. */
export async function authorityToPem({ certificate, keys }: Authority): Promise<AuthorityPem> {
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
  return {
    certificate: certificate.toString('pem'),
    key: PemConverter.encode(pkcs8, 'PRIVATE KEY'),
  };
}

/**
 * Reads what {@link authorityToPem} has written.
 *
 * @throws when it is something else; the message holds nothing of the key
 */
export async function authorityFromPem(pem: AuthorityPem): Promise<Authority> {
  cryptoProvider.set(webcrypto as unknown as Parameters<typeof cryptoProvider.set>[0]);
  try {
    const certificate = new X509Certificate(pem.certificate);
    const [pkcs8] = PemConverter.decode(pem.key);
    if (pkcs8 === undefined) throw new Error('no key');
    const privateKey = await webcrypto.subtle.importKey('pkcs8', pkcs8, ALGORITHM, true, ['sign']);
    const publicKey = (await certificate.publicKey.export()) as unknown as webcrypto.CryptoKey;
    return { certificate, keys: { privateKey, publicKey } };
  } catch {
    throw new Error('Cannot read the authority: its certificate or key is broken');
  }
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
