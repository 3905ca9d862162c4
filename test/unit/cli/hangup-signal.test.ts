import { EventEmitter } from 'node:events';

import { expect, test } from 'vitest';

import { listenForHangups } from '../../../src/cli/hangup-signal.ts';

function source(): EventEmitter & { exit: () => void } {
  return Object.assign(new EventEmitter(), { exit: () => undefined });
}

test('Hangups calls the listener at each SIGHUP', () => {
  const signals = source();
  using hangups = listenForHangups(signals);
  let calls = 0;
  hangups.listen(() => (calls += 1));
  expect(calls).toBe(0);
  signals.emit('SIGHUP', 'SIGHUP');
  signals.emit('SIGHUP', 'SIGHUP');
  expect(calls).toBe(2);
});

test('Hangups calls a listener that comes late, once for all that came before', () => {
  const signals = source();
  using hangups = listenForHangups(signals);
  signals.emit('SIGHUP', 'SIGHUP');
  signals.emit('SIGHUP', 'SIGHUP');
  let calls = 0;
  hangups.listen(() => (calls += 1));
  expect(calls).toBe(1);
});

test('Hangups gives SIGHUP back when it is disposed of', () => {
  const signals = source();
  listenForHangups(signals)[Symbol.dispose]();
  expect(signals.listenerCount('SIGHUP')).toBe(0);
});
