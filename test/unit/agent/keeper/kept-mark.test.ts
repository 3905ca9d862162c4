import { describe, expect, it } from 'vitest';

import { decodeMark, encodeMark } from '../../../../src/agent/keeper/kept-mark.ts';

const prefix = 'containerd.io/gc.ref.content.';

function full(...ends: string[]): string[] {
  return ends.map((end) => prefix + end);
}

describe('encodeMark', () => {
  it('joins positions that follow each other', () => {
    const keys = full('l.10', 'l.0', 'l.1', 'l.2', 'config', 'm.3', '0', '1', 'l.2');
    expect(encodeMark(keys)).toBe('0-1,config,l.0-2,l.10,m.3');
  });

  it('gives up when there is no room in a label', () => {
    const odd = Array.from({ length: 1000 }, (_, index) => `l.${2 * index}`);
    expect(encodeMark(full(...odd))).toBeUndefined();
    const many = Array.from({ length: 4096 }, (_, index) => `l.${index}`);
    expect(encodeMark(full(...many))).toBe('l.0-4095');
  });
});

describe('decodeMark', () => {
  it('gives what was encoded', () => {
    const keys = full('config', 'l.0', 'l.1', 'l.2', 'm.3', 'm.5', '0');
    expect([...decodeMark(encodeMark(keys))].sort()).toEqual(keys.sort());
  });

  it('leaves out what makes no sense', () => {
    const odd = 'l.,config-3,l.x,l.0-,-1,x.1,,l.1-0,m.2, l.4,containerd.io/gc.root,l.9999999';
    expect([...decodeMark(odd)]).toEqual(full('m.2'));
    expect(decodeMark(undefined).size).toBe(0);
    expect(decodeMark('').size).toBe(0);
    expect(decodeMark('l.0,'.repeat(2000)).size).toBe(0);
  });

  it('is not kept busy by a mark that nobody has written', () => {
    expect(decodeMark('l.0-999999').size).toBeLessThanOrEqual(100_000);
  });
});
