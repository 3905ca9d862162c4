import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { runCertsIssue, runCertsShow, type CertsTarget } from '../../../src/cli/certs.ts';
import { createProgram } from '../../../src/cli/program.ts';
import { createAuthority, issueIdentity } from '../../../src/rpc/certificates.ts';
import { addressesIn, rolesIn } from '../../../src/rpc/identity-roles.ts';
import { readIdentity, type Identity } from '../../../src/rpc/identity.ts';
import { suiteScope } from '../../support/test-scope.ts';

const scope = suiteScope('bootstrap-identity');
const dayMs = 86_400_000;
const times = { identityValidMs: 90 * dayMs, authorityValidMs: 900 * dayMs, settleMs: dayMs };
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';

const leaf = ({ certificate }: Identity): X509Certificate => new X509Certificate(certificate);

function identityAt(directory: string): Promise<Identity> {
  const [ca, certificate, key] = ['ca.crt', 'tls.crt', 'tls.key'].map((each) =>
    join(directory, each),
  ) as [string, string, string];
  return readIdentity({ ca, certificate, key });
}

describe('issueIdentity', () => {
  test('issueIdentity makes the identity of a new node good for clients alone', async () => {
    const authority = await createAuthority();
    const [bootstrap, both] = await Promise.all([
      issueIdentity(authority, ['bootstrap']),
      issueIdentity(authority, ['agent', 'bootstrap'], { addresses: ['10.0.0.1', 'a.test'] }),
    ]);
    expect(leaf(bootstrap).keyUsage).toEqual([CLIENT_AUTH]);
    expect(leaf(bootstrap).subjectAltName).toBe('DNS:bootstrap.salvor.internal');
    expect(leaf(both).keyUsage).toEqual([SERVER_AUTH, CLIENT_AUTH]);
    expect(leaf(both).checkIP('10.0.0.1')).toBe('10.0.0.1');
    expect(leaf(both).checkHost('a.test')).toBe('a.test');
    expect(leaf(both).checkIP('10.0.0.2')).toBeUndefined();
  });
});

describe('addressesIn', () => {
  test('addressesIn gives what is no role, each in one form', () => {
    const names =
      'DNS:agent.salvor.internal, DNS:B.test, IP Address:FD00:0:0:0:0:0:0:1, DNS:b.test, ' +
      'IP Address:10.0.0.1, URI:spiffe://x, DNS:registry.salvor.internal';
    expect(addressesIn(names)).toEqual(['10.0.0.1', 'b.test', 'fd00::1']);
    expect(addressesIn(undefined)).toEqual([]);
    expect([...rolesIn(names)]).toEqual(['agent', 'registry']);
  });
});

describe('salvor certs', () => {
  test('salvor certs issues the identity of new nodes beside those of agents', async () => {
    const at = (name: string): string => join(scope().directory, name);
    const target: CertsTarget = {
      authorityDirectory: at('authority'),
      directories: [at('out')],
      roles: ['agent', 'registry', 'bootstrap'],
      isCombined: false,
      namespace: '',
    };
    const request = { agentAddresses: ['10.0.0.1'] };
    const said = await runCertsIssue(target, { times, json: false, request });
    expect(said).toContain('issued for bootstrap');
    const agent = await identityAt(at('out/agent-tls'));
    const newNode = await identityAt(at('out/bootstrap-tls'));
    expect([...rolesIn(leaf(agent).subjectAltName)]).toEqual(['agent']);
    expect(addressesIn(leaf(agent).subjectAltName)).toEqual(['10.0.0.1']);
    expect([...rolesIn(leaf(newNode).subjectAltName)]).toEqual(['bootstrap']);
    expect(addressesIn(leaf(newNode).subjectAltName)).toEqual([]);
    expect(newNode.ca.equals(agent.ca)).toBe(true);
    const shown = await runCertsShow(target, { json: false });
    expect(shown).toMatch(/CN=salvor agent[^]*CN=salvor bootstrap/);
    expect(await runCertsIssue(target, { times, json: false, request })).toBe('nothing to do\n');
  });

  test.each([
    [['--address', '10.0.0.1:7492'], 'Expected an IP address or a DNS name'],
    [['--address', '10.0.0.300'], 'Expected an IP address or a DNS name'],
    [['--address', 'Registry.Salvor.internal'], 'Names of roles are no addresses'],
    [['--address', '*.salvor.internal'], 'Names of roles are no addresses'],
    [['--address', 'a b'], 'Expected an IP address or a DNS name'],
    [['--roles', 'agent,node'], 'Expected one or more of agent, registry, bootstrap'],
  ])('salvor certs issue refuses %j', async (words, message) => {
    let error = '';
    const program = createProgram({
      version: '0',
      env: {},
      signals: process,
      loaders: {} as never,
      writeOut: () => undefined,
      writeError: (text) => (error += text),
    });
    await expect(
      program.parseAsync(['certs', 'issue', ...words], { from: 'user' }),
    ).rejects.toThrow();
    expect(error).toContain(message);
  });
});
