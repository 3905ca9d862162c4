import { beforeEach, describe, expect, test } from 'vitest';

import {
  GuardLeases,
  removeGuardLeases,
  type Guard,
  type GuardedImage,
} from '../../../../src/agent/keeper/guard-lease.ts';
import { GuardSet } from '../../../../src/agent/keeper/guard-set.ts';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { FakeLeases } from './fake-leases.ts';

const lifetimeMs = 6 * 3_600_000;
const digest = (name: string): Digest => digestOf(Buffer.from(name));
const none: ReadonlyMap<string, Guard> = new Map();

let clock: FakeClock;
let fake: FakeLeases;
let leases: GuardLeases;

beforeEach(() => {
  clock = new FakeClock();
  fake = new FakeLeases();
  leases = new GuardLeases(
    { lifetimeMs, maxGuards: 10 },
    { leases: fake.port, sizeOf: fake.sizeOf, clock },
  );
});

function image(name: string, sizes: readonly number[] = [10, 20]): GuardedImage {
  const blobs = new Map(sizes.map((size, index) => [digest(`${name} ${index}`), size]));
  for (const [blob, size] of blobs) fake.put(blob, size);
  const names = [`registry.test/team/${name}:v1`];
  return { target: digest(`${name} 0`), names, blobs, usedAtMs: clock.now() - 5000 };
}

async function created(wanted: GuardedImage): Promise<Guard> {
  const guard = await leases.create(wanted, {});
  if (guard === undefined) throw new Error('Cannot guard the image of this test');
  return guard;
}

describe('GuardLeases', () => {
  test('create makes a flat, expiring lease that holds every blob by name', async () => {
    const wanted = image('app');
    const guard = await created(wanted);
    const lease = fake.leases.get(guard.id);
    expect(lease?.labels).toHaveProperty(['containerd.io/gc.flat']);
    expect(Date.parse(lease?.labels['containerd.io/gc.expire'] ?? '')).toBe(
      clock.now() + lifetimeMs,
    );
    expect(lease?.resources).toEqual(
      [...wanted.blobs.keys()].map((id) => ({ type: 'content', id })),
    );
  });

  test('create leaves nothing when a blob went away before it was held', async () => {
    const wanted = image('app');
    fake.onCall = (call) => {
      if (!call.startsWith('create')) return;
      fake.recorded.clear();
      fake.collect();
    };
    expect(await leases.create(wanted, {})).toBeUndefined();
    expect(fake.heldIds).toEqual([]);
  });

  test('create leaves nothing when it fails in the middle', async () => {
    const wanted = image('app');
    fake.failing = 'add';
    await expect(leases.create(wanted, {})).rejects.toThrow('containerd is away');
    expect(fake.heldIds).toEqual([]);
  });

  test('renew deletes the old lease only when the new one holds everything', async () => {
    const wanted = image('app');
    const guard = await created(wanted);
    expect(leases.isDue(guard)).toBe(false);
    clock.advance(lifetimeMs / 2);
    expect(leases.isDue(guard)).toBe(true);
    // Only leases keep it from now on.
    fake.recorded.clear();
    fake.calls.length = 0;
    fake.onCall = () => fake.collect();
    const successor = await leases.renew(guard, {});
    expect(successor?.blobs).toEqual(guard.blobs);
    expect(fake.calls.map((call) => call.split(' ')[0])).toEqual([
      'create',
      'add',
      'add',
      'delete',
    ]);
    expect(fake.calls.at(-1)).toBe(`delete ${guard.id}`);
    expect([...fake.disk.keys()]).toEqual([...wanted.blobs.keys()]);
    expect(leases.isDue(successor ?? guard)).toBe(false);
  });

  test('find takes over what an earlier process left, whole', async () => {
    const guard = await created(image('app'));
    const { guards, useless } = await leases.find(none, {});
    expect(guards).toEqual([guard]);
    expect(useless).toEqual([]);
  });

  test('find calls useless what holds too little, has lost a blob, or is there twice', async () => {
    const half = image('half');
    await created(half);
    fake.leases.get(fake.heldIds[0] ?? '')?.resources.pop();
    const lost = await created(image('lost'));
    fake.disk.delete(lost.target);
    const old = await created(image('twice'));
    clock.advance(1000);
    const successor = await leases.create(old, {});
    const [halfId] = fake.heldIds;
    const { guards, useless } = await leases.find(none, {});
    expect(guards).toEqual([successor]);
    expect(useless.toSorted()).toEqual([halfId, lost.id, old.id].toSorted());
  });

  test('find takes over a bounded number of leases', async () => {
    for (let index = 0; index < 12; index += 1) await created(image(`app ${index}`));
    const { guards, useless } = await leases.find(none, {});
    expect([guards.length, useless.length]).toEqual([10, 2]);
  });

  test('create keeps a bounded number of names with the lease', async () => {
    const names = Array.from(
      { length: 200 },
      (_, index) => `registry.test/${'x'.repeat(100)}:${index}`,
    );
    const guard = await created({ ...image('app'), names });
    const lengths = Object.entries(fake.leases.get(guard.id)?.labels ?? {}).map(
      ([key, value]) => key.length + value.length,
    );
    expect(Math.max(...lengths)).toBeLessThanOrEqual(4096);
    expect((await leases.find(none, {})).guards[0]?.names.length).toBeGreaterThan(10);
  });
});

test('removeGuardLeases lets go of all of them and waits at the last', async () => {
  await created(image('a'));
  await created(image('b'));
  fake.calls.length = 0;
  fake.recorded.clear();
  expect(await removeGuardLeases(fake.port)).toBe(2);
  expect(fake.calls.filter((call) => call.endsWith(' sync'))).toEqual([fake.calls.at(-1)]);
  expect(fake.disk.size).toBe(0);
});

describe('GuardSet', () => {
  let set: GuardSet;
  const terms = (budget: number | undefined) => ({
    mayAdd: () => true,
    budgetBytes: () => budget,
  });

  beforeEach(() => {
    set = new GuardSet({ leases });
  });

  test('add refuses what would not fit, counting shared blobs once', async () => {
    const a = image('a', [10, 20]);
    const b = image('b', [10]);
    const withShared = { ...b, blobs: new Map([...b.blobs, ...a.blobs]) };
    expect(await set.add(a, terms(29))).toBe(false);
    expect(await set.add(a, terms(undefined))).toBe(false);
    expect(await set.add(a, terms(30))).toBe(true);
    expect(await set.add(withShared, terms(39))).toBe(false);
    expect(await set.add(withShared, terms(40))).toBe(true);
    expect(set.sizeBytes).toBe(40);
    expect(await set.add(image('c'), { ...terms(1000), mayAdd: () => false })).toBe(false);
  });

  test('add takes back the bytes of a guard that could not be made', async () => {
    const a = image('a');
    fake.failing = 'add';
    await expect(set.add(a, terms(100))).rejects.toThrow('containerd is away');
    expect(set.sizeBytes).toBe(0);
    expect(await set.add(a, terms(30))).toBe(true);
  });

  test('add never exceeds the budget, however many ask at once', async () => {
    const images = Array.from({ length: 8 }, (_, index) => image(`app ${index}`));
    let most = 0;
    fake.onCall = () => {
      most = Math.max(most, set.sizeBytes);
    };
    const added = await Promise.all(images.map((each) => set.add(each, terms(100))));
    expect(added.filter(Boolean)).toHaveLength(3);
    expect(most).toBeLessThanOrEqual(100);
  });

  test('refresh forgets leases that somebody has deleted and deletes useless ones', async () => {
    const a = image('a');
    await set.add(a, terms(100));
    const twice = await created(a);
    await set.refresh({});
    expect(fake.heldIds).toHaveLength(1);
    expect(set.sizeBytes).toBe(30);
    fake.leases.clear();
    await set.refresh({});
    expect([set.guards.size, set.sizeBytes]).toEqual([0, 0]);
    expect(twice.id).not.toBe('');
  });

  test('renewIfDue replaces a lease at half of its life, and drops what has lost a blob', async () => {
    const a = image('a');
    await set.add(a, terms(100));
    const before = set.guards.get(a.target)?.id;
    expect(await set.renewIfDue(a.target, {})).toBe(true);
    expect(set.guards.get(a.target)?.id).toBe(before);
    clock.advance(lifetimeMs / 2);
    expect(await set.renewIfDue(a.target, {})).toBe(true);
    expect(set.guards.get(a.target)?.id).not.toBe(before);
    expect(fake.heldIds).toEqual([set.guards.get(a.target)?.id]);
    clock.advance(lifetimeMs / 2);
    fake.disk.delete(a.target);
    expect(await set.renewIfDue(a.target, {})).toBe(false);
    expect([set.sizeBytes, fake.heldIds]).toEqual([0, []]);
  });

  test('enoughOf stops as soon as enough bytes go, and counts no byte that stays anyway', async () => {
    const [a, b, c] = ['a', 'b', 'c'].map((name) => image(name));
    if (a === undefined || b === undefined || c === undefined) throw new Error('no images');
    for (const each of [a, b, c]) await set.add(each, terms(1000));
    const order = [a.target, b.target, c.target];
    expect(set.enoughOf(order, new Set(), 30)).toEqual([a.target]);
    expect(set.enoughOf(order, new Set(), 31)).toEqual([a.target, b.target]);
    expect(set.enoughOf(order, new Set(a.blobs.keys()), 30)).toEqual([a.target, b.target]);
    expect(set.bytesOnlyHeld([a.target, b.target], new Set(a.blobs.keys()))).toBe(30);
  });

  test('release waits for garbage collection at the last of several', async () => {
    const images = ['a', 'b'].map((name) => image(name));
    for (const each of images) await set.add(each, terms(1000));
    fake.calls.length = 0;
    await set.release([...images.map(({ target }) => target), digest('unknown')], { sync: true });
    expect(fake.calls.map((call) => call.endsWith(' sync'))).toEqual([false, true]);
    expect([set.guards.size, set.sizeBytes]).toEqual([0, 0]);
  });
});
