import { EventEmitter } from 'node:events';

import { expect, test } from 'vitest';

import { listenForShutdown } from '../../../src/cli/shutdown-signal.ts';

class FakeProcess extends EventEmitter {
  readonly exits: number[] = [];

  exit(code: number): void {
    this.exits.push(code);
  }
}

test.each(['SIGTERM', 'SIGINT'])('listenForShutdown aborts at the first %s', (name) => {
  const source = new FakeProcess();
  using shutdown = listenForShutdown(source);
  expect(shutdown.signal.aborted).toBe(false);
  source.emit(name, name);
  expect(shutdown.signal.reason).toEqual(new Error(`Received ${name}`));
  expect(source.exits).toEqual([]);
});

test('listenForShutdown exits at the second signal, of either kind', () => {
  const source = new FakeProcess();
  using shutdown = listenForShutdown(source);
  source.emit('SIGTERM', 'SIGTERM');
  source.emit('SIGINT', 'SIGINT');
  expect(shutdown.signal.aborted).toBe(true);
  expect(source.exits).toEqual([130]);
});

test('ShutdownSignal gives the signals back when it is disposed of', () => {
  const source = new FakeProcess();
  listenForShutdown(source)[Symbol.dispose]();
  expect(source.listenerCount('SIGTERM') + source.listenerCount('SIGINT')).toBe(0);
});
