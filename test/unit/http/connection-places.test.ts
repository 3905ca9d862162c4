import { Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import { ConnectionPlaces } from '../../../src/http/connection-places.ts';

function socketOf(host: string): Socket {
  return Object.defineProperty(new Socket(), 'remoteAddress', { value: host });
}

describe('ConnectionPlaces', () => {
  test('ConnectionPlaces lets no newcomer displace another host that has no more than it', () => {
    const places = new ConnectionPlaces({ max: 3, gives: 'newest' });
    for (const host of ['a', 'b', 'c']) expect(places.take(socketOf(host))).toBeUndefined();

    const newcomer = socketOf('d');

    expect(places.take(newcomer)).toBe(newcomer);
    expect(places.taken).toBe(3);
  });

  test('ConnectionPlaces takes the newest of the host that has most for a host that has fewer', () => {
    const places = new ConnectionPlaces({ max: 3, gives: 'newest' });
    const [first, second, other] = [socketOf('a'), socketOf('a'), socketOf('b')];
    for (const socket of [first, second, other]) places.take(socket);

    expect(places.take(socketOf('c'))).toBe(second);
  });

  test('ConnectionPlaces takes the oldest where nobody has shown to be of use', () => {
    const places = new ConnectionPlaces({ max: 2, gives: 'oldest' });
    const [first, second] = [socketOf('a'), socketOf('b')];
    for (const socket of [first, second]) places.take(socket);

    expect(places.take(socketOf('c'))).toBe(first);
  });

  test('ConnectionPlaces gives a place that was left to the next, and none twice', () => {
    const places = new ConnectionPlaces({ max: 1, gives: 'newest' });
    const first = socketOf('a');
    expect(places.take(first)).toBeUndefined();
    expect(places.take(first)).toBeUndefined();
    places.leave(first);
    places.leave(first);

    expect(places.taken).toBe(0);
    expect(places.take(socketOf('b'))).toBeUndefined();
  });
});
