import { describe, expect, test } from 'vitest';
import { isInShare } from '../../../../src/node/hosts/node-share.ts';

const names = Array.from({ length: 2000 }, (_, index) => `node-${index}`);

describe('isInShare', () => {
  test('isInShare takes about as many nodes as it is told, none at 0 and all at 100', () => {
    const share = (percent: number): number =>
      (100 * names.filter((name) => isInShare(name, percent)).length) / names.length;
    expect(share(0)).toBe(0);
    expect(share(100)).toBe(100);
    expect(Math.abs(share(10) - 10)).toBeLessThan(2.5);
  });

  test('isInShare has the nodes of a smaller share in every larger one', () => {
    for (const name of names.filter((each) => isInShare(each, 5))) {
      expect(isInShare(name, 6), name).toBe(true);
    }
  });
});
