import { EventEmitter } from 'node:events';
import { cp, readFile, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';

import { runProgram } from '../../../src/cli/program.ts';
import { checkIdentity } from '../../../src/rpc/identity-facts.ts';
import { suiteScope } from '../../support/test-scope.ts';

const scope = suiteScope('certs-command');
const unused = () => Promise.reject(new Error('no server is started here'));
const files = ['ca.crt', 'tls.crt', 'tls.key'];
let count = 0;
let out: string;
let errors: string;

beforeEach(() => {
  count += 1;
});

function at(...names: readonly string[]): string {
  return join(scope().directory, String(count), ...names);
}

/** `salvor certs`, with a directory for the authority and one for identities. */
async function certs(command: string, ...flags: readonly string[]): Promise<number> {
  out = '';
  errors = '';
  return runProgram(
    ['certs', command, '--authority', at('authority'), '--out', at('node'), ...flags],
    {
      version: '1.2.3',
      env: {},
      signals: Object.assign(new EventEmitter(), { exit: () => undefined }),
      loaders: { registry: unused, agent: unused, start: unused, demo: unused },
      writeOut: (text) => (out += text),
      writeError: (text) => (errors += text),
    },
  );
}

async function identityIn(directory: string) {
  const [ca, certificate, key] = await Promise.all(
    files.map((name) => readFile(join(directory, name))),
  );
  const identity = { ca: ca!, certificate: certificate!, key: key! };
  return { ...identity, ...checkIdentity(identity, { nowMs: Date.now() }) };
}

describe('salvor certs in directories', () => {
  test('salvor certs issue makes an identity for each role, which can be none other', async () => {
    expect(await certs('issue')).toBe(0);
    expect((await readdir(at('node'))).toSorted()).toEqual(['agent-tls', 'registry-tls']);
    const agent = await identityIn(at('node', 'agent-tls'));
    const registry = await identityIn(at('node', 'registry-tls'));
    expect([...agent.roles]).toEqual(['agent']);
    expect([...registry.roles]).toEqual(['registry']);
    expect(agent.key.equals(registry.key)).toBe(false);
    expect(agent.ca.equals(registry.ca)).toBe(true);
    expect(out).toContain(`${at('node', 'registry-tls')}: issued for registry, there was none`);
  });

  test('salvor certs issue changes nothing the second time, and then only what is missing', async () => {
    await certs('issue');
    const [agent, registry] = [at('node', 'agent-tls'), at('node', 'registry-tls')];
    const before = [await identityIn(agent), await identityIn(registry)];
    expect(await certs('issue')).toBe(0);
    expect(out).toBe('nothing to do\n');
    await rm(join(registry, 'tls.key'));
    expect(await certs('issue')).toBe(0);
    expect(out).toMatch(/^\S+registry-tls: issued for registry, the old one was of no use: .*\n$/);
    const after = [await identityIn(agent), await identityIn(registry)];
    expect(after[0]!.leaf.fingerprint).toBe(before[0]!.leaf.fingerprint);
    expect(after[1]!.leaf.fingerprint).not.toBe(before[1]!.leaf.fingerprint);
  });

  test('salvor certs issue takes an agent’s identity away from where the registry’s belongs', async () => {
    await certs('issue');
    await cp(at('node', 'agent-tls'), at('node', 'registry-tls'), { recursive: true });
    await certs('issue');
    expect(out).toContain('registry-tls: issued for registry, the old one was for other roles');
    expect([...(await identityIn(at('node', 'registry-tls'))).roles]).toEqual(['registry']);
  });

  test('salvor certs issue makes one identity for both where it is asked to', async () => {
    expect(await certs('issue', '--combined')).toBe(0);
    expect((await readdir(at('node'))).toSorted()).toEqual(files);
    expect([...(await identityIn(at('node'))).roles].toSorted()).toEqual(['agent', 'registry']);
    // The authority remembers what it has issued, so that nobody loses its trust by a slip.
    expect(await certs('issue')).toBe(1);
    expect(errors).toContain(`the authority has issued identities for ${at('node')}, too`);
    expect(await certs('issue', '--forget', at('node'))).toBe(0);
    expect([...(await identityIn(at('node', 'agent-tls'))).roles]).toEqual(['agent']);
  });

  test('salvor certs issue --address names addresses beside the role, in one form each', async () => {
    const addresses = ['10.0.0.2', 'FD00:0::1', '*.Nodes.test', '10.0.0.2'];
    const flags = addresses.flatMap((address) => ['--address', address]);
    expect(await certs('issue', ...flags)).toBe(0);
    const agent = await identityIn(at('node', 'agent-tls'));
    expect(agent.addresses).toEqual(['*.nodes.test', '10.0.0.2', 'fd00::1']);
    expect([...agent.roles]).toEqual(['agent']);
    expect((await identityIn(at('node', 'registry-tls'))).addresses).toEqual([]);
  });

  test.each([
    ['10.0.0.1:7492', 'without a port'],
    ['10.0.0.300', 'Expected an IP address or a DNS name'],
    ['https://node-a', 'Expected an IP address or a DNS name'],
    ['registry.salvor.internal', 'Names of roles are no addresses'],
    ['Bootstrap.Salvor.Internal', 'Names of roles are no addresses'],
  ])('salvor certs issue --address refuses %s', async (address, message) => {
    expect(await certs('issue', '--address', address)).toBe(2);
    expect(errors).toContain(message);
    await expect(readdir(at('node'))).rejects.toThrow('ENOENT');
  });

  test('salvor certs keeps several directories, and shows and renews all that is in them', async () => {
    const more = ['--out', at('other'), '--roles', 'registry'];
    expect(await certs('issue', ...more)).toBe(0);
    expect(await readdir(at('other'))).toEqual(['registry-tls']);
    expect(await certs('show', ...more)).toBe(0);
    expect(out.match(/^identity {3}\S+registry-tls$/gm)).toHaveLength(2);
    expect(out).not.toContain('problem');
    const before = await identityIn(at('other', 'registry-tls'));
    expect(await certs('rotate', '--identities', ...more)).toBe(0);
    const after = await identityIn(at('other', 'registry-tls'));
    expect(after.leaf.fingerprint).not.toBe(before.leaf.fingerprint);
    expect(after.ca.equals(before.ca)).toBe(true);
  });
});
