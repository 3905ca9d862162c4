import { describe, expect, test } from 'vitest';

import { DecisionLog, type Decision } from '../../../src/registry/decision-log.ts';

const decision: Decision = {
  ...{ at: '', method: 'HEAD', kind: 'manifest', registry: 'a.test', repository: 'b' },
  ...{ reference: '1', status: 200, decision: 'upstream', source: 'upstream', tried: [] },
  ...{ end: 'complete', bytes: 0, headersMs: 1, totalMs: 1 },
};

describe('DecisionLog', () => {
  test('DecisionLog says since when it remembers all: its start, then its oldest entry', () => {
    const before = Date.now();
    const log = new DecisionLog({ maxEntries: 2 });
    const { since } = log;
    expect(Date.parse(since)).toBeGreaterThanOrEqual(before);
    log.add({ ...decision, at: '2026-01-01T00:00:01Z' });
    expect(log.since).toBe(since);
    log.add({ ...decision, at: '2026-01-01T00:00:02Z' });
    log.add({ ...decision, at: '2026-01-01T00:00:03Z' });
    expect(log.since).toBe('2026-01-01T00:00:02Z');
    log.add({ ...decision, at: '2026-01-01T00:00:04Z' });
    expect(log.since).toBe('2026-01-01T00:00:03Z');
  });
});
