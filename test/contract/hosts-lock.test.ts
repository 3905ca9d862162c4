import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

import { describeTree, plantTree } from '../support/certs-trees.ts';
import { suiteScope } from '../support/test-scope.ts';
import { repositoryRoot } from '../support/tools.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('hosts-lock');
const commandLine = join(repositoryRoot, 'src/main.ts');
const hostsChild = join(repositoryRoot, 'test/support/hosts-child.ts');
/** A step at which some files are written and others are not. */
const halfway = '12';

const entries = {
  'a.test/hosts.toml': '[host."https://m.test"]\n[host."https://m.test".header]\nX = "y"\n',
  'b.test/hosts.toml': 'server = "https://b.test"\n[host."https://m.test"]\n',
  'c.test': { directoryMode: 0o700 },
};

interface Place {
  readonly root: string;
  readonly state: string;
}

interface Run {
  readonly child: ChildProcess;
  readonly ended: Promise<{ readonly code: number; readonly out: string; readonly error: string }>;
  readonly error: () => string;
}

async function plant(name: string): Promise<Place> {
  const place = {
    root: join(scope().directory, name, 'certs.d'),
    state: join(scope().directory, name, 'state'),
  };
  await mkdir(place.root, { recursive: true });
  await plantTree(place.root, { name, entries, joined: [] });
  return place;
}

function start(command: string, ...arguments_: readonly string[]): Run {
  const child = spawn(command, arguments_, { stdio: ['ignore', 'pipe', 'pipe'] });
  scope().defer(async () => {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  });
  let [out, error] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (error += chunk.toString()));
  const ended = once(child, 'close').then(([code]) => ({ code: Number(code ?? -1), out, error }));
  return { child, ended, error: () => error };
}

function hosts(verb: string, place: Place): readonly string[] {
  const given = ['--config-path', place.root, '--node-state-directory', place.state];
  const version = ['--containerd-version', '2.2.0'];
  return [commandLine, 'hosts', verb, '--no-wait', ...version, ...given];
}

/** A run that stands still with the lock, half its work done. */
async function stopped(place: Place): Promise<ChildProcess> {
  const { child } = start(
    process.execPath,
    ...[hostsChild, 'write', place.root, place.state, halfway, 'SIGSTOP'],
  );
  await waitFor(
    async () => /^State:\s+T/m.test(await readFile(`/proc/${child.pid}/status`, 'utf8')),
    { what: 'the other run to stand still', timeoutMs: 20_000 },
  );
  return child;
}

describe('salvor hosts, more than once at a time', () => {
  test('salvor hosts ends well in every one of many runs, and can be undone', async () => {
    const place = await plant('many');
    const before = await describeTree(place.root);
    const alone = await plant('alone');
    expect(await start(process.execPath, ...hosts('write', alone)).ended).toMatchObject({
      code: 0,
    });
    for (let round = 0; round < 2; round += 1) {
      const verbs = ['write', 'restore', 'write', 'write'];
      const runs = verbs.map((verb) => start(process.execPath, ...hosts(verb, place)));
      for (const { ended } of runs) expect(await ended).toMatchObject({ code: 0 });
      expect(await start(process.execPath, ...hosts('write', place)).ended).toMatchObject({
        code: 0,
      });
      const texts = await Promise.all(
        [place, alone].map(({ root }) => readFile(join(root, 'a.test/hosts.toml'), 'utf8')),
      );
      expect(texts[0]).toBe(texts[1]);
    }
    expect(await start(process.execPath, ...hosts('restore', place)).ended).toMatchObject({
      code: 0,
    });
    expect(await describeTree(place.root)).toEqual(before);
  });

  test.each(['write', 'restore'])(
    'salvor hosts %s waits for a run that is not done, and goes on when that is killed',
    async (verb) => {
      const place = await plant(`killed-${verb}`);
      const before = await describeTree(place.root);
      const other = await stopped(place);
      const run = start(process.execPath, ...hosts(verb, place));
      await waitFor(() => run.error().includes('\n'), { timeoutMs: 20_000 });
      expect(run.error()).toMatch(
        new RegExp(`^waiting for \`hosts-child write\`, process ${other.pid} since 20`),
      );
      other.kill('SIGKILL');
      expect(await run.ended).toMatchObject({ code: 0 });
      await start(process.execPath, ...hosts('restore', place)).ended;
      expect(await describeTree(place.root)).toEqual(before);
    },
  );

  test('salvor hosts knows a run in another container, where processes have other numbers', async () => {
    const place = await plant('container');
    const other = await stopped(place);
    const run = start(
      'unshare',
      ...['--pid', '--fork', '--kill-child', '--mount-proc', process.execPath],
      ...hosts('write', place),
    );
    await waitFor(() => run.error().includes('\n'), { timeoutMs: 20_000 });
    expect(run.error()).toContain(`process ${other.pid} of another container since`);
    other.kill('SIGKILL');
    expect(await run.ended).toMatchObject({ code: 0 });
  });

  test('salvor uninstall state waits for a run that is not done', async () => {
    const place = await plant('uninstall');
    const other = await stopped(place);
    const run = start(
      process.execPath,
      ...[commandLine, 'uninstall', 'state', '--directory', place.state],
    );
    await waitFor(() => run.error().includes('\n'), { timeoutMs: 20_000 });
    expect(run.error()).toContain(`waiting for \`hosts-child write\`, process ${other.pid}`);
    other.kill('SIGKILL');
    expect(await run.ended).toMatchObject({ code: 0 });
  });
});
