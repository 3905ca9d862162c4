import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Turns, type Turn } from '../../../src/registry/turns.ts';

const MIB = 1024 * 1024;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance', 'setTimeout', 'clearTimeout'] });
  // What happened at time zero would look as if it had just been looked at.
  vi.advanceTimersByTime(1000);
});
afterEach(() => vi.useRealTimers());

function scene(load = 1): { turns: Turns; setLoad: (load: number) => void } {
  let current = load;
  return {
    turns: new Turns({ measureLoad: () => current }),
    setLoad: (next) => (current = next),
  };
}

/** Lets a body move for 200 ms at a speed. */
function run(body: Turn, bytesPer10Ms: number): void {
  for (let step = 0; step < 20; step += 1) {
    vi.advanceTimersByTime(10);
    body.note(bytesPer10Ms);
  }
}

async function isSettled(promise: Promise<void> | undefined): Promise<boolean> {
  if (promise === undefined) return true;
  const pending = Symbol('pending');
  return (await Promise.race([promise, Promise.resolve(pending)])) !== pending;
}

test('Turns lets the younger body stand back for an older one at full speed', async () => {
  const { turns } = scene();
  const [elder, younger] = [turns.enter(), turns.enter()];
  run(elder, MIB);
  expect(elder.standBack()).toBeUndefined();
  const wait = younger.standBack();
  expect(wait).toBeDefined();
  vi.advanceTimersByTime(49);
  expect(await isSettled(wait)).toBe(false);
  vi.advanceTimersByTime(1);
  expect(await isSettled(wait)).toBe(true);
  elder.leave();
  younger.leave();
});

test('Turns lets everybody go on as soon as an older body has ended', async () => {
  const { turns } = scene();
  const [elder, younger] = [turns.enter(), turns.enter()];
  run(elder, MIB);
  const wait = younger.standBack();
  expect(await isSettled(wait)).toBe(false);
  elder.leave();
  expect(await isSettled(wait)).toBe(true);
  expect(younger.standBack()).toBeUndefined();
  expect(vi.getTimerCount()).toBe(0);
});

test('Turns lets all bodies run while the process has time to spare', () => {
  const { turns, setLoad } = scene(0.84);
  const [elder, younger] = [turns.enter(), turns.enter()];
  run(elder, MIB);
  expect(younger.standBack()).toBeUndefined();
  setLoad(0.85);
  // The load is measured over some time, not for every chunk.
  expect(younger.standBack()).toBeUndefined();
  run(elder, MIB);
  expect(younger.standBack()).toBeDefined();
  elder.leave();
});

test('Turns does not make anybody wait for a body that is slow or stands still', () => {
  const { turns } = scene();
  const [slow, stopped, younger] = [turns.enter(), turns.enter(), turns.enter()];
  run(stopped, MIB);
  run(slow, 64 * 1024);
  expect(younger.standBack()).toBeUndefined();
  run(stopped, MIB);
  expect(younger.standBack()).toBeDefined();
  slow.leave();
});
