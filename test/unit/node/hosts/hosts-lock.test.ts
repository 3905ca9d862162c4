import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';

import { HostsLock } from '../../../../src/node/hosts/hosts-lock.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { repositoryRoot } from '../../../support/tools.ts';

const script = join(repositoryRoot, 'test/support/lock-child.ts');
const children: ChildProcess[] = [];
let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'salvor-lock-'));
});

afterEach(async () => {
  for (const child of children.splice(0)) {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }
  await rm(directory, { recursive: true });
});

function startChild(...arguments_: readonly string[]): ChildProcess {
  const child = spawn(process.execPath, [script, ...arguments_], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  children.push(child);
  return child;
}

async function holder(): Promise<ChildProcess> {
  const child = startChild('hold', directory);
  const [said] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  expect(said.toString()).toBe('held\n');
  return child;
}

interface Attempt {
  readonly clock: FakeClock;
  readonly heard: string[];
  readonly lock: Promise<HostsLock>;
}

function attempt(signal: AbortSignal = AbortSignal.timeout(20_000)): Attempt {
  const clock = new FakeClock();
  const heard: string[] = [];
  const lock = HostsLock.acquire(
    { directory, what: 'a test', waitMs: 300, signal },
    { clock, onWait: (text) => heard.push(text) },
  );
  // Looked at later.
  lock.catch(() => undefined);
  return { clock, heard, lock };
}

async function letPass(clock: FakeClock, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round += 1) {
    await clock.untilSleeping();
    clock.advance(100);
  }
}

test('HostsLock waits as long as it was told, then names who has it', async () => {
  const child = await holder();
  const { clock, heard, lock } = attempt();
  await letPass(clock, 3);
  const named = `\`lock-child hold\`, process ${child.pid} since 20`;
  await expect(lock).rejects.toThrow(named);
  await expect(lock).rejects.toThrow('Nothing was changed after 0.3 s of waiting');
  expect(heard).toEqual([expect.stringContaining(named)]);
});

test('HostsLock is taken as soon as the holder has released it, and leaves nothing behind', async () => {
  const child = await holder();
  const { clock, lock } = attempt();
  await clock.untilSleeping();
  child.stdin?.write('\n');
  await once(child, 'exit');
  clock.advance(100);
  await (await lock)[Symbol.asyncDispose]();
  expect(await readdir(directory)).toEqual([]);
});

test('HostsLock outlives its holder by nothing, however that ends', async () => {
  const child = await holder();
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(await readdir(directory)).not.toEqual([]);
  const { heard, lock } = attempt();
  await (await lock)[Symbol.asyncDispose]();
  expect(heard).toEqual([]);
  expect(await readdir(directory)).toEqual([]);
});

test('HostsLock stays with a holder that stands still', async () => {
  const child = await holder();
  child.kill('SIGSTOP');
  const { clock, lock } = attempt();
  await letPass(clock, 3);
  await expect(lock).rejects.toThrow(`process ${child.pid}`);
});

test('HostsLock is held by one at a time, also within a process', async () => {
  const first = await attempt().lock;
  const { clock, lock } = attempt();
  await clock.untilSleeping();
  await first[Symbol.asyncDispose]();
  clock.advance(100);
  const second = await lock;
  const third = attempt();
  await letPass(third.clock, 3);
  await expect(third.lock).rejects.toThrow(`\`a test\`, process ${process.pid}`);
  await second[Symbol.asyncDispose]();
});

test('HostsLock is not waited for once the caller has given up', async () => {
  await holder();
  const giveUp = new AbortController();
  const { clock, lock } = attempt(giveUp.signal);
  await clock.untilSleeping();
  giveUp.abort(new Error('given up'));
  await expect(lock).rejects.toThrow('given up');
});

test('HostsLock says so when there is something else under its name', async () => {
  await writeFile(join(directory, 'hosts.lock'), 'not empty');
  await expect(attempt().lock).rejects.toThrow(`Cannot lock ${join(directory, 'hosts.lock')}`);
});

test('HostsLock keeps many processes apart that take it, and remove its file, in turn', async () => {
  const file = join(directory, 'count');
  await writeFile(file, '0');
  const [processes, times] = [4, 25];
  const codes = await Promise.all(
    Array.from({ length: processes }, async () => {
      const child = startChild('count', directory, file, String(times));
      return ((await once(child, 'exit')) as [number | null])[0];
    }),
  );
  expect(codes).toEqual([0, 0, 0, 0]);
  expect(await readFile(file, 'utf8')).toBe(String(processes * times));
});
