import { describe, expect, test } from 'vitest';
import { Schedule } from './schedule.ts';

const pull = { node: 'x', holders: ['y', 'z'], fromMs: 100, toMs: 200 };

function scheduleWith(downs: readonly (readonly [string, number, number?])[]): Schedule {
  const schedule = new Schedule({ graceMs: 10 });
  for (const [what, fromMs, toMs] of downs) {
    const back = schedule.down(what, fromMs);
    if (toMs !== undefined) back(toMs);
  }
  return schedule;
}

describe('Schedule.isServable', () => {
  test.each([
    ['nothing is down', []],
    ['the registry is down, nodes are not', [['upstream', 0]]],
    [
      'one holder of two is down',
      [
        ['upstream', 0],
        ['agent/y', 150, 160],
      ],
    ],
    [
      'all agents are down, the registry is not',
      [
        ['agent/x', 0],
        ['agent/y', 0],
        ['agent/z', 0],
      ],
    ],
    [
      'the registry came back just before',
      [
        ['agent/x', 0],
        ['upstream', 0, 99],
      ],
    ],
    [
      'an agent came back long enough before',
      [
        ['upstream', 0],
        ['agent/x', 0, 80],
      ],
    ],
  ] as const)('Schedule.isServable is true where %s', (_, downs) => {
    expect(scheduleWith(downs).isServable(pull)).toBe(true);
  });

  test.each([
    ['the node cannot be asked', [['registry/x', 190]]],
    ['the node cannot be asked yet', [['registry/x', 0, 95]]],
    [
      'the node has no agent, and no registry',
      [
        ['upstream', 0],
        ['agent/x', 150, 151],
      ],
    ],
    [
      'every holder is away for a moment',
      [
        ['upstream', 0],
        ['agent/y', 110, 120],
        ['agent/z', 190],
      ],
    ],
    [
      'the registry fails in the middle',
      [
        ['agent/x', 0],
        ['upstream', 150, 151],
      ],
    ],
  ] as const)('Schedule.isServable is false where %s', (_, downs) => {
    expect(scheduleWith(downs).isServable(pull)).toBe(false);
  });

  test('Schedule.isServable needs the registry where no node has it', () => {
    const alone = { ...pull, holders: [] };
    expect(scheduleWith([]).isServable(alone)).toBe(true);
    expect(scheduleWith([['upstream', 0]]).isServable(alone)).toBe(false);
  });
});
