import { describe, expect, it } from 'vitest';
import { PeerLoad } from '../../../../src/registry/sources/peer-load.ts';

function scene(): { load: PeerLoad; wait: (ms: number) => void } {
  let nowMs = Date.UTC(2026, 6, 1);
  return { load: new PeerLoad({ now: () => nowMs }), wait: (ms) => void (nowMs += ms) };
}

describe('PeerLoad', () => {
  it('PeerLoad has a node that failed cost more, for a while', () => {
    const { load, wait } = scene();
    load.recordFailure('a');
    expect(load.cost('a')).toBe(8);
    wait(10_000);
    expect(load.cost('a')).toBe(4);
    wait(60_000);
    expect(load.cost('a')).toBe(0);
    expect(load.cost('b')).toBe(0);
  });

  it('PeerLoad forgets nodes that failed and never came back', () => {
    const { load, wait } = scene();
    const sizes: number[] = [];
    for (let minute = 0; minute < 20; minute += 1) {
      for (let n = 0; n < 50; n += 1) load.recordFailure(`node-${minute}-${n}`);
      sizes.push(load.size);
      wait(60_000);
    }
    expect(Math.max(...sizes)).toBeLessThanOrEqual(100);
  });

  it('PeerLoad forgets none that is sending, or failed a moment ago', () => {
    const { load, wait } = scene();
    const end = load.begin('sending');
    load.recordFailure('sending');
    wait(60_000);
    load.recordFailure('failing');
    wait(20_000);
    load.recordFailure('other');
    expect(load.cost('sending')).toBe(1);
    expect(load.cost('failing')).toBe(2);
    end();
    expect(load.size).toBe(2);
  });
});
