import { readFileSync } from 'node:fs';
import { chmod, chown } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { DirectoryNode } from '../support/directory-node.ts';
import { spin } from '../support/spin.ts';
import { suiteScope } from '../support/test-scope.ts';
import { repositoryRoot } from '../support/tools.ts';

const scope = suiteScope('systemd-frozen');
/** Of the user and the group `salvor`, as salvor.sysusers.conf has it. */
const salvor = 65_532;

let node: DirectoryNode;

/** Runs a command as a unit does, as far as its user, its group and its capabilities go. */
function launcher(unit: string): string[] {
  const text = readFileSync(join(repositoryRoot, 'packaging', 'systemd', unit), 'utf8');
  const value = (key: string): string => new RegExp(`^${key}=(.*)$`, 'm').exec(text)![1]!;
  const id = (key: string): number => (value(key) === 'root' ? 0 : salvor);
  const kept = value('CapabilityBoundingSet').split(' ').filter(Boolean);
  const bounding = ['-all', ...kept.map((name) => name.replace('CAP_', '+').toLowerCase())];
  return [
    '/usr/bin/setpriv',
    ...[`--reuid=${id('User')}`, `--regid=${id('Group')}`, '--clear-groups'],
    ...['--inh-caps=-all', '--ambient-caps=-all', `--bounding-set=${bounding.join(',')}`],
    '--no-new-privs',
  ];
}

beforeAll(async () => {
  const nodes = await DirectoryNode.createGroup(scope(), ['node'], {
    upstreams: {},
    launcher: {
      agent: launcher('salvor-agent.service'),
      registry: launcher('salvor-registry.service'),
    },
    watchdog: { timeoutMs: 1000 },
  });
  node = nodes.node;
  // As salvor.tmpfiles.conf has /run/salvor, and what the registry reads.
  await chown(dirname(node.socketPath), 0, salvor);
  await chmod(dirname(node.socketPath), 0o2770);
  await chmod(scope().directory, 0o755);
  const { key } = node.identityPaths;
  await chown(key, 0, salvor);
  await chmod(key, 0o640);
  await node.startAgent();
});

describe('with the users and capabilities of the systemd units', () => {
  test.each([
    ['is stopped as a whole', () => node.registry.kill('SIGSTOP')],
    ['spins', () => spin(node.registry)],
  ])('a registry that %s is ended by its agent', async (_, fallIll) => {
    await node.startRegistry();
    await node.registry.waitForLine(/"by":"the agent".*"this process is watched"/);
    const status = readFileSync(`/proc/${node.agent.pid}/status`, 'utf8');
    // CAP_KILL is the sixth bit: capability.h.
    expect(/^CapEff:\t(.+)$/m.exec(status)?.[1]).toBe('0000000000000020');

    await fallIll();

    expect(await node.registry.exited).toMatchObject({ signal: 'SIGKILL' });
    expect(node.agent.lines().map(({ text }) => text)).toContainEqual(
      expect.stringContaining('ending a registry process that has fallen silent'),
    );
  });
});
