import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import { imageEnvironment } from '../support/program-path.ts';
import { suiteScope } from '../support/test-scope.ts';
import { repositoryRoot } from '../support/tools.ts';
import { unknownArguments } from '../support/unknown-arguments.ts';

const scope = suiteScope('systemd-units');
const directory = join(repositoryRoot, 'packaging', 'systemd');
const units = readdirSync(directory).filter((file) => file.endsWith('.service'));

/** Every value of every key, in order; section names are left out, as no key is in two. */
function settingsOf(unit: string): ReadonlyMap<string, readonly string[]> {
  const settings = new Map<string, string[]>();
  for (const line of readFileSync(join(directory, unit), 'utf8').split('\n')) {
    const [, key, value] = /^([A-Za-z]+)=(.*)$/.exec(line) ?? [];
    if (key !== undefined) settings.set(key, [...(settings.get(key) ?? []), value!]);
  }
  return settings;
}

describe.each(units)('%s', (unit) => {
  const settings = settingsOf(unit);

  test('calls the program with arguments that it knows', () => {
    const [command] = settings.get('ExecStart') ?? [];
    const [program, ...arguments_] = command!.split(' ');
    expect(program).toBe('/usr/bin/salvor');
    expect(unknownArguments(arguments_)).toEqual([]);
    expect(command).toContain('--config=/etc/salvor/config.yaml');
  });

  test('may do no more than it must', () => {
    expect(Object.fromEntries(settings)).toMatchObject({
      NoNewPrivileges: ['true'],
      ProtectSystem: ['strict'],
      ProtectHome: ['true'],
      PrivateDevices: ['true'],
      RestrictNamespaces: ['true'],
      CapabilityBoundingSet: [
        {
          'salvor-hosts.service': 'CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER',
          'salvor-agent.service': 'CAP_KILL',
        }[unit] ?? '',
      ],
    });
    // Node compiles JavaScript while it runs.
    expect(settings.has('MemoryDenyWriteExecute')).toBe(false);
    expect(settings.get('User')).toEqual([unit === 'salvor-registry.service' ? 'salvor' : 'root']);
  });

  test('is one that systemd understands, and thinks well of', () => {
    // The program need not be installed here.
    const copy = join(scope().directory, unit);
    const program = join(scope().directory, 'salvor');
    mkdirSync(scope().directory, { recursive: true });
    writeFileSync(program, '');
    chmodSync(program, 0o755);
    const text = readFileSync(join(directory, unit), 'utf8').replace('/usr/bin/salvor', program);
    writeFileSync(copy, text);
    const verify = ['verify', '--recursive-errors=no', '--man=no', copy];
    const said = execFileSync('systemd-analyze', verify, { encoding: 'utf8', stdio: 'pipe' });
    expect(said).toBe('');
    const threshold = ['security', '--offline=true', '--threshold=30', '--no-pager', copy];
    // Ends with an error when the exposure is above 3.0 of 10.
    expect(execFileSync('systemd-analyze', threshold, { encoding: 'utf8' })).toContain('OK');
  });
});

describe('servers under systemd', () => {
  test.each(['salvor-agent.service', 'salvor-registry.service'])('%s comes back', (unit) => {
    const settings = settingsOf(unit);
    expect(Object.fromEntries(settings)).toMatchObject({
      Restart: ['always'],
      StartLimitIntervalSec: ['0'],
      ReadWritePaths: ['/run/salvor'],
    });
    const { MALLOC_ARENA_MAX } = imageEnvironment();
    expect(settings.get('Environment')).toContain(`MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX}`);
    // What runs has 20 s to end.
    expect(Number(settings.get('TimeoutStopSec')?.[0])).toBeGreaterThan(20);
  });

  test('share a directory that is neither one’s own', () => {
    const tmpfiles = readFileSync(join(directory, 'salvor.tmpfiles.conf'), 'utf8');
    expect(tmpfiles).toMatch(/^d \/run\/salvor 2770 root salvor -$/m);
  });

  /** Settings with the unit's environment over the file. */
  const configOf = async (unit: string) => {
    const lines = settingsOf(unit).get('Environment') ?? [];
    const env = Object.fromEntries(lines.map((line) => line.split('=') as [string, string]));
    const command = unit.slice('salvor-'.length, -'.service'.length);
    return loadConfig({ file: join(directory, 'config.yaml'), env, flags: {}, command });
  };

  test.each(['agent', 'registry'])('have an identity each: the %s its own alone', async (role) => {
    const { tls } = await configOf(`salvor-${role}.service`);
    const own = `/etc/salvor/${role}-tls`;
    const { ca, certificate, key } = tls;
    expect([ca, certificate, key]).toEqual([`${own}/ca.crt`, `${own}/tls.crt`, `${own}/tls.key`]);
    for (const other of units.filter((unit) => unit !== `salvor-${role}.service`)) {
      expect(settingsOf(other).get('InaccessiblePaths')?.join(' ')).toContain(`-${own}`);
    }
    const tmpfiles = readFileSync(join(directory, 'salvor.tmpfiles.conf'), 'utf8');
    const [mode, group] = role === 'agent' ? ['0700', 'root'] : ['0750', 'salvor'];
    expect(tmpfiles).toContain(`\nd ${own} ${mode} root ${group} -\n`);
  });

  test('have a configuration that the program takes', async () => {
    const config = await loadConfig({ file: join(directory, 'config.yaml'), env: {}, flags: {} });
    expect(config.agent.socket).toBe('/run/salvor/agent.sock');
    expect(config.registry.agentSocket).toBe(config.agent.socket);
    expect(config.node.stateDirectory).toBe('/var/lib/salvor');
  });
});
