import { expect, test } from 'vitest';

import { rendezvousOrder, rendezvousWeight } from '../../../src/discovery/rendezvous.ts';

const nodes = Array.from({ length: 5 }, (_, index) => `node-${index}`);

test('rendezvousOrder is the same whatever order the nodes are named in', () => {
  expect(rendezvousOrder('key', nodes)).toEqual(rendezvousOrder('key', nodes.toReversed()));
  expect(rendezvousOrder('key', nodes).toSorted()).toEqual(nodes);
});

test('rendezvousOrder changes nothing about the others when a node leaves', () => {
  const order = rendezvousOrder('key', nodes);
  const [, second] = order;
  const left = nodes.filter((node) => node !== second);
  expect(rendezvousOrder('key', left)).toEqual(order.filter((node) => node !== second));
});

test('rendezvousOrder puts each node first about equally often', () => {
  const firsts = new Map<string, number>();
  for (let key = 0; key < 1000; key += 1) {
    const first = rendezvousOrder(String(key), nodes)[0] ?? '';
    firsts.set(first, (firsts.get(first) ?? 0) + 1);
  }
  expect(Math.min(...firsts.values())).toBeGreaterThan(150);
  expect(firsts.size).toBe(nodes.length);
});

test('rendezvousWeight is an exact number', () => {
  expect(Number.isSafeInteger(rendezvousWeight('key', 'node'))).toBe(true);
});
