import { expect, test } from 'vitest';
import { fallbackCause, wouldHaveFailed } from '../../../src/registry/fallback.ts';
import type { Attempt } from '../../../src/registry/trace.ts';

const attempt = (source: string, outcome: string): Attempt => ({ source, outcome, ms: 1 });
const node = attempt('node/a', 'ok');

test.each([
  { what: 'the upstream gave it', source: 'upstream', attempts: [attempt('upstream', 'ok')] },
  { what: 'nothing was asked', source: 'memory', attempts: [] },
  { what: 'nobody gave it', source: 'none', attempts: [attempt('upstream', 'refused')] },
  {
    what: 'nodes are preferred and were first',
    source: 'node/a',
    attempts: [attempt('upstream', 'overtaken'), node],
    prefersNodes: true,
  },
])('fallbackCause is none where $what', ({ source, attempts, prefersNodes = false }) => {
  expect(fallbackCause({ source, attempts, passedOver: undefined, prefersNodes })).toBeUndefined();
});

test.each([
  { outcome: 'refused', cause: 'refused' },
  { outcome: 'missing', cause: 'gone' },
  { outcome: 'wrong_size', cause: 'bad_answer' },
  { outcome: 'overtaken', cause: 'slow' },
  { outcome: 'something new', cause: 'other' },
])('fallbackCause takes $outcome for $cause', ({ outcome, cause }) => {
  const attempts = [attempt('upstream', outcome), node];
  const request = { source: 'node/a', attempts, passedOver: undefined, prefersNodes: false };
  expect(fallbackCause(request)).toBe(cause);
});

test('fallbackCause names the cut of a body that began at the upstream', () => {
  const attempts = [attempt('upstream', 'ok'), attempt('upstream', 'cut'), node];
  const source = 'upstream,node/a';
  const request = { source, attempts, passedOver: undefined, prefersNodes: false };
  expect(fallbackCause(request)).toBe('cut');
});

test('fallbackCause names why the upstream was passed over', () => {
  const request = { source: 'memory', attempts: [], passedOver: 'timeout', prefersNodes: false };
  expect(fallbackCause(request)).toBe('timeout');
});

test('wouldHaveFailed leaves out an upstream that was merely slow', () => {
  expect(wouldHaveFailed('slow')).toBe(false);
  expect(wouldHaveFailed('refused')).toBe(true);
});
