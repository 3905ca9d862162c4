import { describe, expect, test } from 'vitest';

import {
  byDispensability,
  chooseCopies,
  copiesAhead,
  UniqueBytes,
  type CopyState,
} from '../../../../src/agent/keeper/copy-choice.ts';
import { rendezvousOrder } from '../../../../src/discovery/rendezvous.ts';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';

const digest = (name: string): Digest => digestOf(Buffer.from(name));
const dayMs = 86_400_000;

function state(name: string, change: Partial<CopyState> = {}): CopyState {
  const target = digest(name);
  return {
    ...{ target, blobs: new Map([[target, 10]]), wanted: 2, others: 0, ahead: 0 },
    ...{ state: 'idle', isGuarded: false, isWhole: true, usedAtMs: 0 },
    ...change,
  };
}

function guarded(states: readonly CopyState[], options: { budget: number; blind?: boolean }) {
  const { budget: budgetBytes, blind: isBlind = false } = options;
  return chooseCopies(states, { budgetBytes, isBlind });
}

const names = (states: readonly { readonly target: Digest }[], all: readonly string[]): string[] =>
  states.map(({ target }) => all.find((name) => digest(name) === target) ?? '?');

describe('chooseCopies', () => {
  test('guards what has too few copies before this one, and nothing else', () => {
    const states = [
      state('few', { others: 1, ahead: 1 }),
      state('enough', { others: 3, ahead: 2 }),
      state('unwanted', { wanted: 0 }),
      state('broken', { isWhole: false }),
    ];
    const { guard, release } = guarded(states, { budget: 1000 });
    expect(names(guard, ['few', 'enough', 'unwanted', 'broken'])).toEqual(['few']);
    expect(release.size).toBe(0);
  });

  test('releases what is guarded and need not be, with the reason', () => {
    const change = { isGuarded: true, state: 'held' as const };
    const states = [
      state('enough', { ...change, others: 3, ahead: 2 }),
      state('unwanted', { ...change, wanted: 0 }),
      state('broken', { ...change, isWhole: false }),
      state('fits', change),
      state('older', { ...change, usedAtMs: -dayMs }),
    ];
    const { release } = guarded(states, { budget: 10 });
    expect([...release]).toEqual(
      expect.arrayContaining([
        [digest('enough'), 'copies'],
        [digest('unwanted'), 'policy'],
        [digest('broken'), 'incomplete'],
        [digest('older'), 'budget'],
      ]),
    );
    expect(release.size).toBe(4);
  });

  test('orders by use, copies elsewhere, removal and age, as far as the budget goes', () => {
    const all = ['held', 'idle', 'old', 'double', 'inUse'];
    const states = [
      state('inUse', { state: 'inUse', usedAtMs: 9 * dayMs }),
      state('double', { others: 1, usedAtMs: 8 * dayMs }),
      state('old', { usedAtMs: dayMs }),
      state('idle', { usedAtMs: 2 * dayMs }),
      state('held', { state: 'held', isGuarded: true, usedAtMs: 0 }),
    ];
    expect(names(guarded(states, { budget: 50 }).guard, all)).toEqual(all);
    expect(names(guarded(states, { budget: 29 }).guard, all)).toEqual(['held', 'idle']);
  });

  test('never takes more bytes than the budget, and counts shared ones once', () => {
    const shared: readonly [Digest, number] = [digest('shared'), 70];
    const states = ['a', 'b', 'c'].map((name) =>
      state(name, { blobs: new Map([shared, [digest(name), 10]]) }),
    );
    expect(guarded(states, { budget: 90 }).guard).toHaveLength(2);
    expect(guarded(states, { budget: 89 }).guard).toHaveLength(1);
    expect(guarded(states, { budget: 79 }).guard).toHaveLength(0);
  });

  test('leaves what is guarded alone for uses within the hour, not for later ones', () => {
    const old = state('old', { isGuarded: true, usedAtMs: 0 });
    const soon = guarded([state('new', { usedAtMs: 60_000 }), old], { budget: 10 });
    expect(names(soon.guard, ['new', 'old'])).toEqual(['old']);
    const later = guarded([state('new', { usedAtMs: dayMs }), old], { budget: 10 });
    expect(names(later.guard, ['new', 'old'])).toEqual(['new']);
  });

  test('puts nothing new in the place of what is guarded while nobody answers', () => {
    const states = [
      state('new', { usedAtMs: dayMs }),
      state('guarded', { isGuarded: true, state: 'inUse' }),
    ];
    expect(names(guarded(states, { budget: 10 }).guard, ['new', 'guarded'])).toEqual(['new']);
    const blind = guarded(states, { budget: 10, blind: true });
    expect(names(blind.guard, ['new', 'guarded'])).toEqual(['guarded']);
    expect(blind.release.size).toBe(0);
  });
});

describe('copiesAhead', () => {
  const target = digest('image');
  const all = ['a', 'b', 'c', 'd'];

  test('is different on every node that has the image, so that exactly as many as wanted keep it', () => {
    const ranks = all.map((self) =>
      copiesAhead(
        target,
        { node: self, isNamed: true },
        all.filter((node) => node !== self).map((node) => ({ node, isNamed: true })),
      ),
    );
    expect(ranks.toSorted()).toEqual([0, 1, 2, 3]);
    expect(all[ranks.indexOf(0)]).toBe(rendezvousOrder(target, all)[0]);
  });

  test('counts every copy that a runtime has before one that is only held', () => {
    const named = ['b', 'c'].map((node) => ({ node, isNamed: true }));
    const self = { node: 'a', isNamed: false };
    expect(copiesAhead(target, self, named)).toBe(2);
    const held = { node: 'd', isNamed: false };
    const first = rendezvousOrder(target, ['a', 'd'])[0] === 'a';
    expect(copiesAhead(target, self, [...named, held])).toBe(first ? 2 : 3);
    expect(copiesAhead(target, { node: 'b', isNamed: true }, [held, self])).toBe(0);
  });
});

test('byDispensability lets the best replicated go first, of those the oldest', () => {
  const all = ['one', 'two', 'older two'];
  const order = [
    state('one', { others: 1, usedAtMs: 0 }),
    state('two', { others: 2, usedAtMs: 5 }),
    state('older two', { others: 2, usedAtMs: 4 }),
  ].sort(byDispensability);
  expect(names(order, all)).toEqual(['older two', 'two', 'one']);
});

test('UniqueBytes counts a blob until the last of its users has gone', () => {
  const bytes = new UniqueBytes();
  const a = new Map([
    [digest('x'), 5],
    [digest('y'), 7],
  ]);
  const b = new Map([[digest('y'), 7]]);
  bytes.add(a);
  bytes.add(b);
  expect(bytes.sizeBytes).toBe(12);
  expect(bytes.remove(a)).toBe(5);
  expect(bytes.sizeBytes).toBe(7);
  expect(bytes.remove(b)).toBe(7);
  expect(bytes.sizeBytes).toBe(0);
});
