import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { execPath } from 'node:process';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { RegistryWatch } from '../../../src/agent/registry-watch.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { processStart } from '../../../src/telemetry/process-start.ts';

const TIMEOUT_MS = 1000;

const children: ChildProcess[] = [];

beforeEach(() => {
  // Reading /proc is real; only the time is the test's.
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] });
});

afterEach(async () => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
  children.length = 0;
});

function process(command = ['sleep', '60']): ChildProcess & { pid: number } {
  const [program = '', ...arguments_] = command;
  const child = spawn(program, arguments_, { stdio: 'ignore' });
  children.push(child);
  if (child.pid === undefined) throw new Error('Cannot start a process');
  return child as ChildProcess & { pid: number };
}

function scene() {
  const killed: number[] = [];
  let ended = 0;
  const watch = new RegistryWatch({
    log: silentLogger,
    kill: (pid) => killed.push(pid),
    onEnded: () => (ended += 1),
    isOurs: async () => true,
  });
  return { watch, killed, ended: () => ended };
}

/** Begins to watch a process that can be seen. */
async function begin(watch: RegistryWatch, pid: number): Promise<{ beat(): void; stop(): void }> {
  const options = { pid, timeoutMs: TIMEOUT_MS, processStart: await processStart(pid) };
  const watched = await watch.start(options);
  if (watched === undefined) throw new Error(`Cannot see process ${pid}`);
  return watched;
}

/** Lets time pass as it does: in small steps. */
async function pass(ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 20) await vi.advanceTimersByTimeAsync(20);
}

/** Lets reads of /proc come back. */
async function settle(): Promise<void> {
  for (let n = 0; n < 20; n += 1) await new Promise((resolve) => setImmediate(resolve));
}

describe('RegistryWatch', () => {
  it('RegistryWatch ends a process that has been silent for its time', async () => {
    const { watch, killed, ended } = scene();
    const { pid } = process();
    await begin(watch, pid);
    await pass(TIMEOUT_MS * 0.9);
    await settle();
    expect(killed).toEqual([]);
    await pass(TIMEOUT_MS * 0.2);
    await vi.waitFor(() => expect(killed).toEqual([pid]));
    expect(ended()).toBe(1);
    // Once is enough.
    await pass(TIMEOUT_MS * 3);
    await settle();
    expect(killed).toEqual([pid]);
  });

  it('RegistryWatch leaves a process alone that gives signs of life', async () => {
    const { watch, killed } = scene();
    const watched = await begin(watch, process().pid);
    for (let n = 0; n < 10; n += 1) {
      await pass(TIMEOUT_MS * 0.8);
      watched.beat();
    }
    await settle();
    expect(killed).toEqual([]);
    watched.stop();
  });

  it('RegistryWatch means nothing by silence after a stop', async () => {
    const { watch, killed } = scene();
    const watched = await begin(watch, process().pid);
    watched.stop();
    await pass(TIMEOUT_MS * 3);
    await settle();
    expect(killed).toEqual([]);
  });

  it('RegistryWatch does not count the time in which it stood still itself', async () => {
    const { watch, killed } = scene();
    const watched = await begin(watch, process().pid);
    await pass(TIMEOUT_MS * 0.8);
    // One check comes very late: everything in this process did.
    vi.setSystemTime(Date.now());
    const real = performance.now();
    vi.spyOn(performance, 'now').mockImplementation(() => real + 60_000);
    await pass(TIMEOUT_MS * 0.4);
    await settle();
    expect(killed).toEqual([]);
    vi.restoreAllMocks();
    watched.stop();
  });

  it('RegistryWatch ends no process that has taken the number of another', async () => {
    const { watch, killed, ended } = scene();
    const child = process();
    const exited = once(child, 'exit');
    await begin(watch, child.pid);
    await settle();
    child.kill('SIGKILL');
    await exited;
    await pass(TIMEOUT_MS * 1.5);
    await settle();
    expect([killed, ended()]).toEqual([[], 0]);
  });

  it('RegistryWatch refuses a number that is another process here', async () => {
    const { watch } = scene();
    const options = { pid: process().pid, timeoutMs: TIMEOUT_MS };
    expect(await watch.start({ ...options, processStart: '1' })).toBeUndefined();
    expect(await watch.start({ ...options, processStart: '' })).toBeUndefined();
  });

  it('RegistryWatch refuses a process that runs another program', async () => {
    const watch = new RegistryWatch({
      log: silentLogger,
      kill: () => undefined,
      onEnded: () => undefined,
    });
    const start = async (pid: number) =>
      watch.start({ pid, timeoutMs: TIMEOUT_MS, processStart: await processStart(pid) });
    expect(await start(process().pid)).toBeUndefined();
    const own = await start(process([execPath, '-e', 'setTimeout(() => 0, 60000)']).pid);
    expect(own).toBeDefined();
    own?.stop();
  });

  it('RegistryWatch survives a process that it may not end', async () => {
    const errors: string[] = [];
    const watch = new RegistryWatch({
      log: { ...silentLogger, error: (_, message) => errors.push(message) },
      kill: () => {
        throw new Error('EPERM');
      },
      onEnded: () => undefined,
      isOurs: async () => true,
    });
    await begin(watch, process().pid);
    await pass(TIMEOUT_MS * 1.2);
    await vi.waitFor(() => expect(errors).toContain('cannot end the silent registry process'));
  });
});
