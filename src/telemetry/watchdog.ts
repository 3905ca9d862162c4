import { Worker } from 'node:worker_threads';

import type { Logger } from './logger.ts';

export interface WatchdogOptions {
  /** How long the event loop may stand still, in milliseconds; 0: no watchdog. */
  readonly timeoutMs: number;
}

export interface Watchdog {
  /** Ends the watch. Harmless when called again. */
  stop(): Promise<void>;
}

/** The thread looks this often within the timeout, and the event loop shows up as often. */
const looksPerTimeout = 8;

// The thread has no event loop of its own: it waits on shared memory and compares. `beats`, at
// index 0, is what the main thread counts up; index 1 is set to end the watch.
//
// It counts its own looks rather than the time that went by. When one look came much later than
// it should have, the whole process stood still (SIGSTOP, a sleeping laptop, no CPU share), the
// main thread had no chance to show up either, and the count starts again.
const threadSource = `
const { workerData: { shared, lookMs, looks, message } } = require('node:worker_threads');
const { openSync, writeSync, constants } = require('node:fs');
const cells = new Int32Array(shared);
// What starting a thread leaves behind would stay for as long as the process.
require('node:v8').setFlagsFromString('--expose-gc');
require('node:vm').runInNewContext('gc')({ type: 'major', execution: 'sync', flavor: 'last-resort' });
let seen = Atomics.load(cells, 0);
let missed = 0;
let lastLook = performance.now();
while (Atomics.wait(cells, 1, 0, lookMs) === 'timed-out') {
  const beats = Atomics.load(cells, 0);
  const look = performance.now();
  missed = beats !== seen || look - lastLook > 2 * lookMs + 50 ? 0 : missed + 1;
  seen = beats;
  lastLook = look;
  if (missed >= looks) {
    const time = new Date().toISOString();
    const line = JSON.stringify({ level: 'error', time, pid: process.pid, msg: message }) + '\\n';
    try {
      // Opened anew so as not to wait where nobody reads standard error.
      let file = 2;
      try {
        file = openSync('/proc/self/fd/2', constants.O_WRONLY | constants.O_APPEND | constants.O_NONBLOCK);
      } catch {}
      writeSync(file, line);
    } catch {}
    process.kill(process.pid, 'SIGKILL');
  }
}
`;

/**
 * Watches the event loop from a thread and ends the process with SIGKILL when it stood still for
 * the timeout, after one JSON line on standard error: a mirror that refuses connections costs a
 * pull nothing, one that accepts them and stays silent costs it a minute.
 *
 * A process that was itself suspended is not mistaken for one that hangs. Neither the thread nor
 * the timer keeps the process alive.
 */
export function startWatchdog(options: WatchdogOptions, log: Pick<Logger, 'warn'>): Watchdog {
  if (options.timeoutMs === 0) {
    return { stop: () => Promise.resolve() };
  }
  const shared = new SharedArrayBuffer(8);
  const cells = new Int32Array(shared);
  const lookMs = Math.max(1, options.timeoutMs / looksPerTimeout);
  const beat = setInterval(() => Atomics.add(cells, 0, 1), lookMs).unref();
  const worker = new Worker(threadSource, {
    eval: true,
    name: 'watchdog',
    env: {},
    execArgv: [],
    workerData: {
      shared,
      lookMs,
      looks: looksPerTimeout,
      message: `Event loop stood still for ${options.timeoutMs} ms, ending the process`,
    },
    resourceLimits: { maxOldGenerationSizeMb: 8, maxYoungGenerationSizeMb: 1, stackSizeMb: 1 },
  });
  worker.unref();
  worker.on('error', (error) => {
    clearInterval(beat);
    log.warn({ err: error }, 'Watchdog thread ended, the event loop is no longer watched');
  });
  const ended = new Promise<void>((resolve) => {
    worker.once('exit', () => resolve());
  });
  return {
    async stop() {
      clearInterval(beat);
      Atomics.store(cells, 1, 1);
      Atomics.notify(cells, 1);
      worker.ref();
      await ended;
    },
  };
}
