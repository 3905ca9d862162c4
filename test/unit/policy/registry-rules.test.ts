import { describe, expect, test } from 'vitest';

import { allowsRegistry } from '../../../src/policy/registry-rules.ts';

describe('allowsRegistry', () => {
  const rules = { allow: ['*'], deny: ['denied.test'], configured: ['mine.invalid'] };

  test.each([
    ['a.test', true],
    ['denied.test', false],
    ['canary.salvor.invalid', false],
    ['Canary.INVALID:5000', false],
    ['invalid.test', true],
    ['mine.invalid', true],
    ['127.0.0.1:5000', false],
  ])('allowsRegistry says of %s: %j', (name, isAllowed) => {
    expect(allowsRegistry(rules, name)).toBe(isAllowed);
  });
});
