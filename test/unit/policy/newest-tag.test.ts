import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../src/oci/digest.ts';
import { newestTag } from '../../../src/policy/newest-tag.ts';
import type { TagStatement } from '../../../src/rpc/agent-protocol.ts';

const NOW_MS = Date.UTC(2026, 5, 1);
const SKEW_MS = 60_000;

function tag(name: string, times: { observedAtMs?: number; recordedAtMs?: number }): TagStatement {
  return { digest: digestOf(Buffer.from(name)), mediaType: 'a/b', sizeBytes: 3, ...times };
}

const holders = (...tags: TagStatement[][]) => tags.map((each) => ({ tags: each }));

describe('newestTag', () => {
  it('newestTag believes the newest that an upstream confirmed, whoever says so', () => {
    const older = tag('older', { observedAtMs: NOW_MS - 2000 });
    const newer = tag('newer', { observedAtMs: NOW_MS - 1000 });
    expect(newestTag(holders([older], [newer]), NOW_MS)).toBe(newer);
    expect(newestTag(holders([newer], [older]), NOW_MS)).toBe(newer);
    expect(newestTag(holders([newer, older]), NOW_MS)).toBe(newer);
  });

  it('newestTag comes to the same of two from one moment, whoever says which first', () => {
    const times = { observedAtMs: NOW_MS - 1000 };
    const [one, other] = [tag('one', times), tag('other', times)];
    const chosen = newestTag(holders([one], [other]), NOW_MS);
    expect(chosen).toBeDefined();
    expect(newestTag(holders([other], [one]), NOW_MS)).toBe(chosen);
    const records = [tag('one', { recordedAtMs: 5 }), tag('other', { recordedAtMs: 5 })] as const;
    const record = newestTag(holders([records[0]], [records[1]]), NOW_MS);
    expect(newestTag(holders([records[1]], [records[0]]), NOW_MS)).toBe(record);
  });

  it('newestTag prefers any confirmed statement to a newer record of a store', () => {
    const confirmed = tag('confirmed', { observedAtMs: NOW_MS - 86_400_000 });
    const record = tag('record', { recordedAtMs: NOW_MS });
    expect(newestTag(holders([record], [confirmed]), NOW_MS)).toBe(confirmed);
  });

  it('newestTag falls back on the newest record of a store', () => {
    const older = tag('older', { recordedAtMs: NOW_MS - 2000 });
    const newer = tag('newer', { recordedAtMs: NOW_MS - 1000 });
    expect(newestTag(holders([newer], [older]), NOW_MS)).toBe(newer);
  });

  it('newestTag does not believe statements from the future', () => {
    const future = tag('future', { observedAtMs: NOW_MS + SKEW_MS + 1 });
    const past = tag('past', { observedAtMs: NOW_MS - 1 });
    const skewed = tag('skewed', { observedAtMs: NOW_MS + SKEW_MS });
    expect(newestTag(holders([future], [past]), NOW_MS)).toBe(past);
    expect(newestTag(holders([future, skewed], [past]), NOW_MS)).toBe(skewed);
    expect(newestTag(holders([future]), NOW_MS)).toBeUndefined();
    const futureRecord = tag('record', { recordedAtMs: NOW_MS + 1e9 });
    expect(newestTag(holders([futureRecord]), NOW_MS)).toBeUndefined();
    // Its record is from the past, its confirmation from the future: one of the two counts.
    const both = tag('both', { observedAtMs: NOW_MS + 1e9, recordedAtMs: NOW_MS - 5 });
    expect(newestTag(holders([both]), NOW_MS)).toBe(both);
  });

  it('newestTag believes nobody when nobody says anything', () => {
    expect(newestTag([], NOW_MS)).toBeUndefined();
    expect(newestTag(holders([], []), NOW_MS)).toBeUndefined();
    expect(newestTag(holders([tag('timeless', {})]), NOW_MS)).toBeUndefined();
  });

  it('newestTag never gives an older confirmed statement than some honest node made', () => {
    const statements = fc.array(
      fc.array(
        fc.record(
          {
            observedAtMs: fc.integer({ min: 0, max: NOW_MS * 2 }),
            recordedAtMs: fc.integer({ min: 0, max: NOW_MS * 2 }),
          },
          { requiredKeys: [] },
        ),
        { maxLength: 3 },
      ),
      { maxLength: 6 },
    );
    fc.assert(
      fc.property(statements, (nodes) => {
        const said = nodes.map((times) => ({
          tags: times.map((each, n) => tag(String(n), each)),
        }));
        const chosen = newestTag(said, NOW_MS);
        const honest = said
          .flatMap(({ tags }) => tags)
          .map(({ observedAtMs }) => observedAtMs)
          .filter((ms) => ms !== undefined && ms <= NOW_MS + SKEW_MS)
          .map(Number);
        if (honest.length > 0) expect(chosen?.observedAtMs).toBe(Math.max(...honest));
      }),
    );
  });
});
