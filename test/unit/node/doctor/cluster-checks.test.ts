import { describe, expect, test } from 'vitest';

import {
  checkClock,
  checkMembers,
  checkReach,
} from '../../../../src/node/doctor/cluster-checks.ts';
import type { Facts, MemberAnswer } from '../../../../src/node/doctor/facts.ts';
import type { NodeReach } from '../../../../src/rpc/node-reach.ts';
import { settings } from './settings.ts';

const nowMs = Date.UTC(2026, 6, 1);
const address = '10.0.0.2:7490';

function reachOf(node: string, members: NodeReach['members'], bypassed = 0): NodeReach {
  return { node, atMs: nowMs, members, pullsSeen: 0, pullsBypassed: bypassed };
}

function member(node: string, failure = ''): NodeReach['members'][number] {
  return { node, address, failure };
}

function answer(reach: NodeReach | undefined, changes: Partial<MemberAnswer> = {}): MemberAnswer {
  return { node: 'node-b', address, reach, failure: '', isOld: false, skewMs: 0, ...changes };
}

function idsOf(others: readonly MemberAnswer[], changes: Partial<Facts['reach']> = {}): string[] {
  const reach = {
    own: reachOf('node-a', [member('node-b')]),
    others,
    isCluster: false,
    ...changes,
  };
  return checkReach({ reach, settings: settings() }).map(({ id }) => id);
}

describe('checkMembers', () => {
  const members = {
    source: 'kubernetes salvor/salvor',
    count: 2,
    confirmedAtMs: nowMs,
    hasSelf: true,
  };
  test.each<[string, Partial<Facts['members']>, string[]]>([
    ['nothing of a good list', {}, []],
    ['nothing of a list from before', { hasSelf: undefined as never }, []],
    ['that it is empty', { count: 0 }, ['members-empty']],
    ['that this node is not in it', { hasSelf: false }, ['members-without-self']],
    ['that it is old', { confirmedAtMs: nowMs - 2 * 3_600_000 }, ['members-stale']],
    ['nothing of a static list that is old', { source: 'static', confirmedAtMs: 0 }, []],
    ['why its source fails', { trouble: '403', confirmedAtMs: 0 }, ['members-source-fails']],
  ])('checkMembers finds %s', (_, changes, ids) => {
    const found = checkMembers({
      members: { ...members, ...changes },
      settings: settings(),
      nowMs,
    });
    expect(found.map(({ id }) => id)).toEqual(ids);
  });
});

describe('checkReach', () => {
  test('checkReach finds nothing where both ways are open', () => {
    expect(idsOf([answer(reachOf('node-b', [member('node-a')]))])).toEqual([]);
  });

  test('checkReach tells each way from the other', () => {
    const own = reachOf('node-a', [member('node-b', 'refused')]);
    expect(idsOf([], { own })).toEqual(['member-unreachable']);
    expect(idsOf([answer(reachOf('node-b', [member('node-a', 'refused')]))])).toEqual([
      'member-cannot-reach-back',
    ]);
    expect(idsOf([answer(reachOf('node-b', []))])).toEqual(['member-does-not-know']);
    expect(idsOf([answer(undefined, { isOld: true })])).toEqual(['members-one-way']);
    expect(idsOf([answer(undefined, { failure: 'refused' })])).toEqual(['member-unreachable']);
  });

  test('checkReach tells of others among themselves, where all of them were asked', () => {
    const far = answer(reachOf('node-b', [member('node-a'), member('node-c', 'refused')], 2));
    expect(idsOf([far], { isCluster: true })).toEqual(['members-cut-off', 'pulls-bypassed']);
    expect(idsOf([far])).toEqual([]);
  });
});

test('checkClock finds a clock that is more than a minute away', () => {
  const of = (skewMs: number | undefined) =>
    checkClock({
      reach: {
        own: reachOf('node-a', []),
        others: [answer(undefined, { skewMs })],
        isCluster: false,
      },
    });
  expect(of(59_000)).toEqual([]);
  expect(of(undefined)).toEqual([]);
  expect(of(-90_000)[0]?.found).toBe('the clock of node-b is 90 s behind this one');
  expect(of(90_000)[0]?.id).toBe('clock-skewed');
});
