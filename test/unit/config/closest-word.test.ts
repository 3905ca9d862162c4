import { expect, test } from 'vitest';

import { closestWord } from '../../../src/config/closest-word.ts';

const keys = ['listen', 'admin', 'limits', 'maxStreams', 'ca'];

test.each([
  ['lisen', 'listen'],
  ['lsiten', 'listen'],
  ['LISTEN', 'listen'],
  ['limit', 'limits'],
  ['max-streams', 'maxStreams'],
  ['cs', 'ca'],
  ['observations', undefined],
  ['zz', undefined],
  ['x'.repeat(300), undefined],
])('closestWord for %j is %j', (word, expected) => {
  expect(closestWord(word, keys)).toBe(expected);
});
