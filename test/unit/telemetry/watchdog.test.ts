import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';

import { afterEach, expect, test } from 'vitest';

import { silentLogger } from '../../../src/telemetry/logger.ts';
import { startWatchdog } from '../../../src/telemetry/watchdog.ts';

const source = new URL('../../../src/telemetry/watchdog.ts', import.meta.url).href;
let child: ChildProcess | undefined;

afterEach(() => {
  child?.kill('SIGKILL');
});

function scriptOf(timeoutMs: number, body: string): string {
  return `
    import { writeSync } from 'node:fs';
    import { startWatchdog } from ${JSON.stringify(source)};
    startWatchdog({ timeoutMs: ${timeoutMs} }, { warn: (_, message) => writeSync(2, message) });
    ${body}
  `;
}

/** Runs a child with a watchdog of `timeoutMs`. */
function run(timeoutMs: number, body: string) {
  const script = scriptOf(timeoutMs, body);
  const started = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child = started;
  let errors = '';
  started.stderr.on('data', (chunk) => (errors += String(chunk)));
  return {
    process: started,
    errors: () => errors,
    /** Settles at the first output. */
    spoke: once(started.stdout, 'data'),
    exit: once(started, 'close') as Promise<[number | null, string | null]>,
  };
}

test('startWatchdog kills a process whose event loop spins, after one line', async () => {
  const { exit, errors } = run(300, 'setTimeout(() => { for (;;); }, 50);');
  expect(await exit).toEqual([null, 'SIGKILL']);
  const lines = errors().trimEnd().split('\n');
  expect(lines).toHaveLength(1);
  expect(JSON.parse(lines[0]!)).toMatchObject({
    level: 'error',
    msg: 'Event loop stood still for 300 ms, ending the process',
  });
});

test('startWatchdog kills a process that is blocked outside of JavaScript', async () => {
  const { exit } = run(
    300,
    'setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0), 50);',
  );
  expect(await exit).toEqual([null, 'SIGKILL']);
});

test('startWatchdog kills even when nobody reads standard error and its pipe is full', async () => {
  // A pipe of the shell: what Node itself gives its children are sockets.
  const flood = "for (;;) try { writeSync(2, 'x'.repeat(65536)); } catch {}";
  const script = scriptOf(300, `setTimeout(() => { ${flood} }, 50);`);
  const pipeline = '{ "$0" --input-type=module --eval "$1" 2>&4; echo $? >&3; } 4>&1 | sleep 30';
  const shell = spawn('sh', ['-c', pipeline, process.execPath, script], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
    detached: true,
  });
  const [code] = (await once(shell.stdio[3]!, 'data')) as [Buffer];
  process.kill(-shell.pid!, 'SIGKILL');
  await once(shell, 'close');
  expect(String(code)).toBe('137\n');
});

test('startWatchdog lets a process live that is busy but turns', async () => {
  const { exit } = run(
    400,
    `const end = Date.now() + 1500;
     const work = () => {
       const pause = Date.now() + 100;
       while (Date.now() < pause);
       if (Date.now() < end) setImmediate(work); else process.exit(7);
     };
     work();`,
  );
  expect(await exit).toEqual([7, null]);
});

test('startWatchdog keeps no process alive', async () => {
  expect(await run(60_000, '').exit).toEqual([0, null]);
});

test('startWatchdog does not mistake a suspended process for one that hangs', async () => {
  // The loop spins all the while, so no beat arrives between waking up and the next look. The
  // thread itself runs only in the short moments between: its clock must tell it so.
  const {
    process: suspended,
    spoke,
    exit,
  } = run(
    1000,
    `writeSync(1, 'ready');
     const end = Date.now() + 4500;
     while (Date.now() < end);
     process.exit(7);`,
  );
  await spoke;
  for (let round = 0; round < 10; round++) {
    suspended.kill('SIGSTOP');
    await elapsed(400);
    suspended.kill('SIGCONT');
    await elapsed(40);
  }
  expect(await exit).toEqual([7, null]);
});

test('Watchdog.stop ends the thread, and may be called again', async () => {
  const watchdog = startWatchdog({ timeoutMs: 60_000 }, silentLogger);
  await watchdog.stop();
  await watchdog.stop();
  expect(process.getActiveResourcesInfo()).not.toContain('MessagePort');
});

test('startWatchdog with 0 ms starts nothing', async () => {
  const before = process.getActiveResourcesInfo().length;
  const watchdog = startWatchdog({ timeoutMs: 0 }, silentLogger);
  expect(process.getActiveResourcesInfo()).toHaveLength(before);
  await watchdog.stop();
});

/** Real time has to go by here: it is another process's clock that is looked at. */
async function elapsed(timeMs: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, timeMs));
}
