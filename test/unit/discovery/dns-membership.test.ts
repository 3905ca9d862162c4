import { describe, expect, test } from 'vitest';
import { DnsMembership, type NameResolver } from '../../../src/discovery/dns-membership.ts';
import type { Member } from '../../../src/discovery/membership.ts';
import type { Family } from '../../../src/discovery/own-address.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const intervalMs = 30_000;

function failure(code: string): Promise<never> {
  return Promise.reject(Object.assign(new Error(`query ${code}`), { code }));
}

/** A name server whose records a test writes. */
class Names implements NameResolver {
  four: Record<string, string[] | string> = {};
  six: Record<string, string[] | string> = {};
  srv: { name: string; port: number }[] | string = 'ENOTFOUND';

  resolve4 = (name: string): Promise<string[]> => answer(this.four[name]);
  resolve6 = (name: string): Promise<string[]> => answer(this.six[name]);
  resolveSrv = (): Promise<{ name: string; port: number }[]> => answer(this.srv);
}

function answer<T>(records: T[] | string | undefined): Promise<T[]> {
  if (records === undefined) return failure('ENODATA');
  return typeof records === 'string' ? failure(records) : Promise.resolve([...records]);
}

/** Asks once for each call of `round`. */
function scene(options: { name: string; family?: Family }) {
  const names = new Names();
  const clock = new FakeClock();
  const lists: (readonly Member[])[] = [];
  const troubles: string[] = [];
  const membership = new DnsMembership(
    { name: options.name, port: 7490, intervalMs, family: options.family ?? 'IPv4' },
    {
      createResolver: () => names,
      list: {
        replace: (members) => void lists.push(members),
        reportTrouble: (reason) => void troubles.push(reason),
      },
      clock,
      log: silentLogger,
    },
  );
  let isStarted = false;
  const round = async (): Promise<void> => {
    if (isStarted) clock.advance(intervalMs);
    else membership.start();
    isStarted = true;
    await clock.untilSleeping();
  };
  return { names, lists, troubles, round, stop: () => membership.stop() };
}

describe('DnsMembership', () => {
  test('DnsMembership makes a member of every address, again and again', async () => {
    const { names, lists, round, stop } = scene({ name: 'salvor.test' });
    names.four['salvor.test'] = ['10.0.0.2', '10.0.0.1'];
    await round();
    names.four['salvor.test'] = ['10.0.0.3'];
    await round();
    await stop();
    expect(lists).toEqual([
      [
        { name: '10.0.0.1:7490', address: '10.0.0.1:7490' },
        { name: '10.0.0.2:7490', address: '10.0.0.2:7490' },
      ],
      [{ name: '10.0.0.3:7490', address: '10.0.0.3:7490' }],
    ]);
  });

  test('DnsMembership asks for the own family first', async () => {
    const { names, lists, round, stop } = scene({ name: 'salvor.test', family: 'IPv6' });
    names.four['salvor.test'] = ['10.0.0.1'];
    names.six['salvor.test'] = ['fd00::1'];
    await round();
    delete names.six['salvor.test'];
    await round();
    await stop();
    expect(lists.map(([member]) => member?.address)).toEqual(['[fd00::1]:7490', '10.0.0.1:7490']);
  });

  test('DnsMembership takes names and ports from SRV records', async () => {
    const { names, lists, round, stop } = scene({ name: '_peers._tcp.salvor.test' });
    names.srv = [
      { name: 'b.salvor.test', port: 1 },
      { name: 'a.salvor.test.', port: 2 },
    ];
    names.four['a.salvor.test'] = ['10.0.0.1'];
    names.six['b.salvor.test'] = ['fd00::2'];
    await round();
    // One target has no address for now, and another cannot be asked for.
    names.six = {};
    names.four['a.salvor.test'] = 'ETIMEOUT';
    await round();
    await stop();
    const expected = [
      { name: 'a.salvor.test', address: '10.0.0.1:2' },
      { name: 'b.salvor.test', address: '[fd00::2]:1' },
    ];
    expect(lists).toEqual([expected, expected]);
  });

  test('DnsMembership changes nothing when the name server fails, and says so', async () => {
    const { names, lists, troubles, round, stop } = scene({ name: 'salvor.test' });
    for (const code of ['ETIMEOUT', 'ESERVFAIL', 'ECONNREFUSED']) {
      names.four['salvor.test'] = code;
      await round();
    }
    await stop();
    expect(lists).toEqual([]);
    expect(troubles).toEqual(['query ETIMEOUT', 'query ESERVFAIL', 'query ECONNREFUSED']);
  });

  test('DnsMembership reports an empty list where the name is gone', async () => {
    const { names, lists, round, stop } = scene({ name: 'salvor.test' });
    names.four['salvor.test'] = 'ENOTFOUND';
    await round();
    await stop();
    expect(lists).toEqual([[]]);
  });

  test('DnsMembership ends while a question is open', async () => {
    const { names, lists, stop } = scene({ name: 'salvor.test' });
    names.four['salvor.test'] = ['10.0.0.1'];
    await stop();
    expect(lists).toEqual([]);
  });
});
