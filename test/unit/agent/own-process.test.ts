import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { execPath } from 'node:process';
import { afterEach, describe, expect, it } from 'vitest';
import { isOwnProcess } from '../../../src/agent/own-process.ts';

const children: ChildProcess[] = [];

afterEach(async () => {
  for (const child of children.splice(0)) {
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
});

async function start(
  command: readonly string[],
  ids: { readonly uid?: number; readonly gid?: number } = {},
): Promise<number> {
  const [program = '', ...rest] = command;
  const child = spawn(program, rest, { stdio: 'ignore', ...ids });
  children.push(child);
  await once(child, 'spawn');
  return child.pid!;
}

const sleep = ['sleep', '60'];

/** What an agent with this group, which runs the same program as this test, says of a process. */
async function saidWithGroup(gid: number, pid: number, uid?: number): Promise<string> {
  const module = new URL('../../../src/agent/own-process.ts', import.meta.url);
  const text = `import { isOwnProcess } from '${module.href}';
    process.stdout.write(String(await isOwnProcess(${pid})));`;
  const child = spawn(execPath, ['--input-type=module', '-e', text], {
    stdio: ['ignore', 'pipe', 'inherit'],
    gid,
    ...(uid === undefined ? {} : { uid }),
  });
  const parts: Buffer[] = [];
  for await (const part of child.stdout) parts.push(part as Buffer);
  return Buffer.concat(parts).toString();
}

describe('isOwnProcess', () => {
  it('isOwnProcess knows its own program, and not itself', async () => {
    expect(await isOwnProcess(await start([execPath, '-e', 'setInterval(() => 0, 1e6)']))).toBe(
      true,
    );
    expect(await isOwnProcess(process.pid)).toBe(false);
  });

  it('isOwnProcess has nothing to do with other programs, or with none', async () => {
    expect(await isOwnProcess(await start(sleep))).toBe(false);
    expect(await isOwnProcess(4_194_304)).toBe(false);
  });

  it.runIf(process.getuid?.() === 0)(
    'isOwnProcess knows who has its group, unless that is root, or the group is',
    async () => {
      const member = await start(sleep, { uid: 65_532, gid: 65_532 });
      const other = await start(sleep, { uid: 65_532, gid: 65_533 });
      const root = await start(sleep, { uid: 0, gid: 65_532 });
      const rootGroup = await start(sleep, { uid: 65_532, gid: 0 });

      expect(await saidWithGroup(65_532, member)).toBe('true');
      expect(await saidWithGroup(65_532, other)).toBe('false');
      expect(await saidWithGroup(65_532, root)).toBe('false');
      expect(await saidWithGroup(0, rootGroup)).toBe('false');
      // One that it may not end.
      expect(await saidWithGroup(65_532, member, 65_534)).toBe('false');
    },
  );
});
