import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { digestOf, type Digest } from '../../../src/oci/digest.ts';
import { Turns, type PartPlace, type Turn } from '../../../src/registry/turns.ts';

const MIB = 1024 * 1024;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance', 'setTimeout', 'clearTimeout'] });
  // What happened at time zero would look as if it had just been looked at.
  vi.advanceTimersByTime(1000);
});
afterEach(() => vi.useRealTimers());

const blobs = ['a', 'b', 'c', 'd'].map((name) => digestOf(Buffer.from(name))) as [
  Digest,
  Digest,
  Digest,
  Digest,
];
const [a, b, c, d] = blobs;

function scene(
  load = 1,
  places: Readonly<Record<Digest, PartPlace>> = {},
): { turns: Turns; setLoad: (load: number) => void } {
  let current = load;
  return {
    turns: new Turns({ measureLoad: () => current, placeOf: (blob) => places[blob] }),
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
  const [elder, younger] = [turns.enter(a), turns.enter(b)];
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
  const [elder, younger] = [turns.enter(a), turns.enter(b)];
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
  const [elder, younger] = [turns.enter(a), turns.enter(b)];
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
  const [slow, stopped, younger] = [turns.enter(a), turns.enter(b), turns.enter(c)];
  run(stopped, MIB);
  run(slow, 64 * 1024);
  expect(younger.standBack()).toBeUndefined();
  run(stopped, MIB);
  expect(younger.standBack()).toBeDefined();
  slow.leave();
});

test('Turns puts the layers of an image in its order, and images as they came', () => {
  const [first, second] = [digestOf(Buffer.from('1')), digestOf(Buffer.from('2'))];
  const { turns } = scene(1, {
    [a]: { image: first, position: 2 },
    [b]: { image: second, position: 0 },
    [c]: { image: first, position: 1 },
  });
  const [ofA, ofB, ofC, ofD] = [turns.enter(a), turns.enter(b), turns.enter(c), turns.enter(d)];
  const order = [ofC, ofA, ofB, ofD];
  for (const body of order) {
    run(body, MIB);
    const waiting = order.filter((each) => each.standBack() !== undefined);
    expect(waiting).toEqual(order.slice(order.indexOf(body) + 1));
    body.leave();
  }
});
