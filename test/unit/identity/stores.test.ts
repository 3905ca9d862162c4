import { chmod, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { CertificateIssuer } from '../../../src/identity/certificate-issuer.ts';
import { DirectoryAuthority, DirectoryIdentity } from '../../../src/identity/directory-stores.ts';
import { describeIdentities } from '../../../src/identity/identity-report.ts';
import { SecretAuthority, SecretIdentity } from '../../../src/identity/secret-stores.ts';
import { API_CALLS } from '../../../src/kubernetes/api-calls.ts';
import { KubeApi } from '../../../src/kubernetes/kube-api.ts';
import { checkIdentity } from '../../../src/rpc/identity-facts.ts';
import { FakeKubeApi } from '../../support/fake-kube-api.ts';
import { suiteScope } from '../../support/test-scope.ts';

const scope = suiteScope('identity-stores');
const times = { identityValidMs: 1e10, authorityValidMs: 1e11, settleMs: 0 };
let count = 0;
let directory: string;

beforeEach(() => {
  count += 1;
  directory = join(scope().directory, String(count));
});

describe('DirectoryIdentity', () => {
  test('DirectoryIdentity keeps the key from others, and the owner and mode that it was given', async () => {
    const store = new DirectoryIdentity(join(directory, 'node'), ['agent']);
    const authority = new DirectoryAuthority(join(directory, 'ca'));
    const issuer = new CertificateIssuer(times, {
      authority,
      identities: [store],
      now: Date.now,
    });
    await issuer.run();
    const modeOf = async (path: string) => (await stat(join(directory, path))).mode & 0o777;
    expect(await modeOf('node/tls.key')).toBe(0o600);
    expect(await modeOf('node/tls.crt')).toBe(0o644);
    expect(await modeOf('ca/authority.json')).toBe(0o600);
    expect(await modeOf('ca')).toBe(0o700);
    await chmod(join(directory, 'node/tls.key'), 0o640);
    await issuer.run({ renewIdentities: true });
    expect(await modeOf('node/tls.key')).toBe(0o640);
    expect((await readdir(join(directory, 'node'))).sort()).toEqual([
      'ca.crt',
      'tls.crt',
      'tls.key',
    ]);
    expect(await readFile(join(directory, 'node/ca.crt'), 'utf8')).not.toContain('PRIVATE');
    const identity = await store.read();
    checkIdentity(identity!, { nowMs: Date.now() });
  });

  test('DirectoryIdentity of half an identity is one that has to be put right', async () => {
    const store = new DirectoryIdentity(directory, ['agent']);
    expect(await store.read()).toBeUndefined();
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, 'tls.crt'), 'x');
    expect(await store.read()).toMatchObject({
      certificate: Buffer.from('x'),
      key: Buffer.alloc(0),
    });
  });
});

describe('SecretIdentity', () => {
  async function cluster() {
    const server = await FakeKubeApi.start(scope());
    const access = { url: new URL(server.url), namespace: 'ns', requestOptions: async () => ({}) };
    const connect = async () => access;
    const api = new KubeApi({ timeoutMs: 5000 }, { connect, calls: API_CALLS.certificates });
    const target = (name: string) => ({ namespace: '', name });
    const authority = new SecretAuthority(target('salvor-ca'), { api });
    const agent = new SecretIdentity(target('salvor-agent'), ['agent'], { api });
    const registry = new SecretIdentity(target('salvor-registry'), ['registry'], { api });
    const identities = [agent, registry];
    const issuer = new CertificateIssuer(times, { authority, identities, now: Date.now });
    return { server, issuer, authority, agent, registry, identities };
  }

  test('SecretIdentity is laid out as cert-manager does it, without the authority’s key', async () => {
    const { server, issuer, agent } = await cluster();
    await issuer.run();
    const secret = server.object('secrets', 'ns', 'salvor-agent');
    expect(secret).toMatchObject({ type: 'kubernetes.io/tls' });
    expect(Object.keys(secret?.['data'] as object).sort()).toEqual([
      'ca.crt',
      'tls.crt',
      'tls.key',
    ]);
    checkIdentity((await agent.read())!, { nowMs: Date.now() });
  });

  test('SecretIdentity keeps what others have written beside its own', async () => {
    const { server, issuer } = await cluster();
    await issuer.run();
    const secret = server.object('secrets', 'ns', 'salvor-agent')!;
    secret.metadata.annotations = { theirs: 'yes' };
    server.put('secrets', secret);
    await issuer.run({ renewIdentities: true });
    expect(server.object('secrets', 'ns', 'salvor-agent')?.metadata.annotations).toEqual({
      theirs: 'yes',
    });
  });

  test('SecretAuthority does not overwrite what somebody else has changed meanwhile', async () => {
    const { server, issuer, authority } = await cluster();
    await issuer.run();
    const state = (await authority.read())!;
    server.put('secrets', server.object('secrets', 'ns', 'salvor-ca')!);
    await expect(authority.write(state)).rejects.toThrow(
      'Cannot write the Secret salvor-ca: it was changed meanwhile, run again',
    );
    const other = await cluster();
    await other.authority.read();
    other.server.put('secrets', { metadata: { name: 'salvor-ca', namespace: 'ns' } });
    await expect(other.authority.write(state)).rejects.toThrow('run again');
  });

  test('SecretIdentity and SecretAuthority need the rights that API_CALLS names, and all of them', async () => {
    const { server, issuer } = await cluster();
    const declared = API_CALLS.certificates.flatMap(({ resource, verbs }) =>
      verbs.map((verb) => `${verb} ${resource}`),
    );
    server.granted = new Set(declared);
    for (let step = 0; step < 4; step += 1) await issuer.run({ replaceAuthority: step === 0 });
    expect(new Set(server.calls)).toEqual(new Set(declared));
  });

  test('describeIdentities shows who, by whom and until when, and nothing of keys', async () => {
    const { issuer, authority, agent, identities, server } = await cluster();
    await issuer.run({ replaceAuthority: true });
    const report = await describeIdentities({ authority, identities }, { nowMs: Date.now() });
    expect(report.authority).toMatchObject({ phase: 'introducing', name: 'Secret salvor-ca' });
    expect(report.authority.certificates.map(({ use }) => use)).toEqual(['current', 'next']);
    expect(report.identities[0]).toMatchObject({
      name: 'Secret salvor-agent',
      subject: 'CN=salvor agent',
    });
    const key = (await agent.read())!.key.toString();
    await agent.write({ ...(await agent.read())!, certificate: Buffer.from(key) });
    server.remove('secrets', 'ns', 'salvor-registry');
    const broken = await describeIdentities({ authority, identities }, { nowMs: Date.now() });
    expect(broken.identities.map(({ problem }) => problem)).toEqual([
      'Cannot read tls.certificate: Cannot find a certificate in it',
      'there is none',
    ]);
    expect(JSON.stringify([report, broken])).not.toContain('PRIVATE');
  });
});
