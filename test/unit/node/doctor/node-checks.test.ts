import { describe, expect, test } from 'vitest';

import {
  checkAgent,
  checkCanary,
  checkDisks,
  checkIdentity,
  checkOwnImage,
  checkPolicies,
  checkProxy,
  checkPulls,
  checkRegistry,
  checkShare,
  checkUpstreams,
} from '../../../../src/node/doctor/node-checks.ts';
import type { Finding } from '../../../../src/node/doctor/finding.ts';
import type { CertificateFacts } from '../../../../src/rpc/identity-facts.ts';
import { settings } from './settings.ts';

const dayMs = 86_400_000;
const nowMs = Date.UTC(2026, 6, 1);
const mib = 1024 ** 2;

function ids(found: readonly Finding[]): string[] {
  return found.map(({ id }) => id);
}

function certificate(subject: string, leftMs: number, lifeMs = 365 * dayMs): CertificateFacts {
  const notAfterMs = nowMs + leftMs;
  return { subject, issuer: '', notBeforeMs: notAfterMs - lifeMs, notAfterMs, fingerprint: '' };
}

describe('node checks', () => {
  test('checkCanary finds a pull that went past, and says what the runtime said', () => {
    const canary = { image: 'a.test/b:1', answer: 'not found' };
    expect(checkCanary({ canary: { ...canary, isAsked: true }, settings: settings() })).toEqual([]);
    const [found] = checkCanary({ canary: { ...canary, isAsked: false }, settings: settings() });
    expect(found).toMatchObject({ id: 'mirror-not-asked', severity: 'error' });
    expect(found?.found).toContain('not found');
  });

  test('checkRegistry tells nobody from somebody else', () => {
    const of = (failure: string, isForeign: boolean) =>
      ids(checkRegistry({ registry: { failure, isForeign }, settings: settings() }));
    expect(of('ECONNREFUSED', false)).toEqual(['registry-unreachable']);
    expect(of('status 401', true)).toEqual(['registry-foreign']);
    const answers = (adminFailure: string) =>
      ids(checkRegistry({ registry: { version: '1', adminFailure }, settings: settings() }));
    expect(answers('')).toEqual([]);
    expect(answers('http://127.0.0.1:7481/status does not answer: ECONNREFUSED')).toEqual([
      'registry-admin-unreachable',
    ]);
  });

  test('checkShare says that a node is left out on purpose', () => {
    expect(checkShare({ settings: settings() })).toEqual([]);
    const [found] = checkShare({
      settings: settings({ isWiringExpected: false, wiredPercent: 5 }),
    });
    expect(found).toMatchObject({ id: 'node-left-out', severity: 'info' });
  });

  test('checkAgent finds an agent that does not answer', () => {
    expect(ids(checkAgent({ agent: { failure: 'no connection' } }))).toEqual(['agent-unreachable']);
    expect(checkAgent({ agent: { failure: '' } })).toEqual([]);
  });

  test.each([
    ['*', 'observe', ['policies-off']],
    ['*', 'bypass', ['policies-off']],
    ['*', 'serve', []],
    ['docker.io/*', 'bypass', []],
  ])('checkPolicies says of %s %s %j', (match, mode, expected) => {
    expect(ids(checkPolicies({ settings: settings({ policies: [{ match, mode }] }) }))).toEqual(
      expected,
    );
  });

  test('checkIdentity finds what ends soon, by how long it was meant to last', () => {
    const of = (
      leaf: CertificateFacts,
      authority = certificate('ca', 900 * dayMs, 1000 * dayMs),
    ) => {
      const roles = new Set(['agent', 'registry'] as const);
      const facts = { leaf, roles, addresses: [], authorities: [authority] };
      return ids(checkIdentity({ identity: { facts }, nowMs }));
    };
    expect(of(certificate('a', 20 * dayMs))).toEqual([]);
    expect(of(certificate('a', 13 * dayMs))).toEqual(['identity-expires']);
    expect(of(certificate('a', dayMs / 2, dayMs))).toEqual([]);
    expect(of(certificate('a', dayMs / 8, dayMs))).toEqual(['identity-expires']);
    expect(of(certificate('a', 20 * dayMs), certificate('ca', dayMs))).toEqual([
      'identity-expires',
    ]);
    const failure = 'Cannot read tls.key';
    expect(ids(checkIdentity({ identity: { failure }, nowMs }))).toEqual(['identity-unusable']);
  });

  test('checkIdentity says which role a certificate lacks', () => {
    const facts = {
      leaf: certificate('a', 100 * dayMs),
      roles: new Set(['agent'] as const),
      addresses: [],
      authorities: [],
    };
    const [found] = checkIdentity({ identity: { facts }, nowMs });
    expect(found).toMatchObject({ id: 'identity-role-missing', severity: 'info' });
    expect(found?.found).toContain('registry.salvor.internal');
  });

  test.each([
    ['content', 70, 10_000, []],
    ['content', 86, 10_000, ['disk-nearly-full']],
    ['content', 96, 10_000, ['disk-full']],
    ['content', 50, 10, ['disk-full']],
    ['state', 90, 10_000, []],
    ['state', 99, 10, ['disk-full']],
  ] as const)(
    'checkDisks says of %s at %d %% with %d MiB %j',
    (of, usedPercent, left, expected) => {
      const all = [{ of, path: '/disk', usedPercent, availableBytes: left * mib }];
      const found = checkDisks({ disks: { all, stateFailure: '', statePath: '/state' } });
      expect(ids(found)).toEqual(expected);
    },
  );

  test('checkDisks finds a state directory that cannot be written', () => {
    const disks = { all: [], stateFailure: 'EACCES', statePath: '/state' };
    expect(ids(checkDisks({ disks }))).toEqual(['state-directory']);
  });

  test('checkUpstreams tells a proven outage from what cannot be asked from here', () => {
    const upstreams = [
      { registry: 'a.test', url: 'https://a.test', failure: '' },
      { registry: 'b.test', url: 'https://b.test', failure: 'refused' },
      { registry: 'c.test', url: 'https://c.test', failure: 'refused', outage: 'refused' },
    ];
    expect(ids(checkUpstreams({ upstreams }))).toEqual(['upstream-unreachable', 'upstream-outage']);
  });

  test('checkProxy finds a mirror behind a proxy, and keeps its password to itself', () => {
    const of = (mirrorUrl: string, noProxy: string) =>
      checkProxy({
        proxy: { url: 'http://user:secret@proxy.test:3128', noProxy },
        settings: settings({ mirrorUrl }),
      });
    expect(of('http://127.0.0.1:7480', '')).toEqual([]);
    const [found] = of('http://10.0.0.1:7480', '.cluster.local');
    expect(found?.id).toBe('proxy-catches-mirror');
    expect(JSON.stringify(found)).not.toContain('secret');
    expect(of('http://10.0.0.1:7480', 'localhost, 10.0.0.1')).toEqual([]);
    expect(of('http://10.0.0.1:7480', '10.0.0.0/8')).toEqual([]);
    expect(of('http://salvor.node.test:7480', '.node.test')).toEqual([]);
  });

  test('checkOwnImage and checkPulls name what they found', () => {
    expect(ids(checkOwnImage({ ownImage: { name: 'a', missing: ['b'] } }))).toEqual([
      'own-image-missing',
    ]);
    expect(checkOwnImage({ ownImage: { name: 'a', missing: [] } })).toEqual([]);
    const examples = [{ image: 'a.test/b:1', reason: 'salvor doctor tells' }];
    const [found] = checkPulls({ pulls: { seen: 3, bypassed: 1, examples } });
    expect(found).toMatchObject({ id: 'pulls-bypassed', fix: 'salvor doctor tells' });
    expect(found?.found).toBe('1 of 4 pulls bypassed Salvor in the last hour, such as a.test/b:1');
    expect(checkPulls({ pulls: { seen: 3, bypassed: 0, examples: [] } })).toEqual([]);
    const unknown = { seen: 0, bypassed: 0, unknown: 2, examples: [] };
    expect(ids(checkPulls({ pulls: unknown }))).toEqual(['pulls-unknown']);
  });
});
