import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { createAuthority, issueIdentity, type Authority } from '../../../src/rpc/certificates.ts';
import { authorityFromPem, authorityToPem } from '../../../src/rpc/certificates.ts';
import { certificatesIn, checkIdentity } from '../../../src/rpc/identity-facts.ts';
import { rolesIn } from '../../../src/rpc/identity-roles.ts';
import { readIdentity, type Identity } from '../../../src/rpc/identity.ts';
import { suiteScope } from '../../support/test-scope.ts';

const scope = suiteScope('identity-facts');
const nowMs = Date.now();
let authority: Authority;
let other: Authority;
let identity: Identity;

beforeAll(async () => {
  [authority, other] = await Promise.all([createAuthority(), createAuthority()]);
  identity = await issueIdentity(authority, ['agent', 'registry']);
});

const check = (change: Partial<Identity>, atMs = nowMs) =>
  checkIdentity({ ...identity, ...change }, { nowMs: atMs });

describe('checkIdentity', () => {
  test('checkIdentity tells roles, names and ends', () => {
    const { leaf, roles, authorities } = check({});
    expect([...roles]).toEqual(['agent', 'registry']);
    expect(leaf).toMatchObject({ subject: 'CN=salvor agent registry' });
    expect(leaf.issuer).toBe(authorities[0]?.subject);
    expect(leaf.notAfterMs).toBeGreaterThan(nowMs + 364 * 86_400_000);
  });

  test('checkIdentity accepts several authorities, and a chain', async () => {
    const ca = Buffer.from(other.certificate.toString('pem') + identity.ca.toString());
    expect(check({ ca }).authorities).toHaveLength(2);
    const chain = Buffer.concat([identity.certificate, Buffer.from('\n'), identity.ca]);
    expect(check({ certificate: chain }).authorities).toHaveLength(1);
    const broken = Buffer.from(identity.certificate.toString() + other.certificate.toString('pem'));
    expect(() => check({ certificate: broken })).toThrow('none of the authorities');
  });

  test('checkIdentity says what is wrong, and nothing of the key', async () => {
    const foreign = await issueIdentity(other, ['agent']);
    const unnamed = await issueIdentity(authority, []);
    const key = Buffer.from('-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n');
    const cases: [() => unknown, string][] = [
      [() => check({ key }), 'Cannot read tls.key: it is no private key in PEM'],
      [() => check({ key: Buffer.alloc(0) }), 'Cannot read tls.key'],
      [() => check({ ca: Buffer.from('x') }), 'Cannot read tls.ca: Cannot find a certificate'],
      [() => check({ certificate: identity.key }), 'Cannot read tls.certificate'],
      [() => check({ key: foreign.key }), 'the key is not that of the certificate'],
      [() => check({ ...foreign, ca: identity.ca }), 'none of the authorities that it trusts'],
      [() => check(unnamed), 'it names no role of Salvor'],
      [() => check({}, nowMs + 366 * 86_400_000), 'it ended 20'],
      [() => check({}, nowMs - 86_400_000), 'it is not valid before 20'],
    ];
    for (const [attempt, message] of cases) {
      expect(attempt).toThrow(message);
      expect(attempt).not.toThrow(/PRIVATE|c2VjcmV0|secret/);
    }
  });

  test('rolesIn is not deceived by names that only look like roles', () => {
    expect([
      ...rolesIn('DNS:agent.salvor.internal.evil.test, URI:DNS:agent.salvor.internal'),
    ]).toEqual([]);
    expect([...rolesIn(undefined)]).toEqual([]);
  });
});

describe('readIdentity', () => {
  test('readIdentity waits for files that are being replaced, and names those that stay wrong', async () => {
    const directory = join(scope().directory, 'files');
    await mkdir(directory);
    const paths = {
      ca: join(directory, 'ca.crt'),
      certificate: join(directory, 'tls.crt'),
      key: join(directory, 'tls.key'),
    };
    const next = await issueIdentity(authority, ['agent']);
    await writeFile(paths.ca, identity.ca);
    await writeFile(paths.certificate, identity.certificate);
    await writeFile(paths.key, next.key);
    await expect(readIdentity(paths)).rejects.toThrow(
      `the key in ${paths.key} is not that of the certificate in ${paths.certificate}`,
    );
    const reading = readIdentity(paths);
    await writeFile(paths.certificate, next.certificate);
    expect(await reading).toEqual({ ...next, ca: identity.ca });
  });
});

describe('authorityFromPem', () => {
  test('authorityFromPem reads what authorityToPem wrote, and issues with it', async () => {
    const again = await authorityFromPem(await authorityToPem(authority));
    const issued = await issueIdentity(again, ['agent']);
    expect(checkIdentity({ ...issued, ca: identity.ca }, { nowMs }).roles).toEqual(
      new Set(['agent']),
    );
    const [first, second] = [authority, other].map(({ certificate }) => certificate.subject);
    expect(first).not.toBe(second);
  });

  test('authorityFromPem says nothing of a key that it cannot read', async () => {
    const pem = await authorityToPem(authority);
    const key = pem.key.slice(0, 80);
    await expect(authorityFromPem({ ...pem, key })).rejects.toThrow(
      /^Cannot read the authority: its certificate or key is broken$/,
    );
    expect(certificatesIn(pem.certificate)).toHaveLength(1);
  });
});
