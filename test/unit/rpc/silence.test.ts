import { describe, expect, it } from 'vitest';
import { Silence } from '../../../src/rpc/silence.ts';

const MINUTE_MS = 60_000;

describe('Silence', () => {
  it('Silence sets no bound to the patience with somebody who answers', () => {
    const silence = new Silence();
    expect(silence.patienceMs(0)).toBe(Infinity);
    silence.note(0);
    silence.end();
    expect(silence.patienceMs(MINUTE_MS)).toBe(Infinity);
  });

  it('Silence has patience for five seconds from the first failure, whatever follows', () => {
    const silence = new Silence();
    silence.note(1000);
    expect(silence.patienceMs(1000)).toBe(5000);
    silence.note(3000);
    expect(silence.patienceMs(4000)).toBe(2000);
  });

  it('Silence leaves a moment for somebody who has been away for long', () => {
    const silence = new Silence();
    silence.note(0);
    silence.note(4900);
    expect(silence.patienceMs(4900)).toBe(250);
    expect(silence.patienceMs(9 * MINUTE_MS)).toBe(250);
  });

  it('Silence that was last noticed ten minutes ago says nothing about a new one', () => {
    const silence = new Silence();
    silence.note(0);
    silence.note(9 * MINUTE_MS);
    expect(silence.patienceMs(9 * MINUTE_MS)).toBe(250);
    silence.note(19 * MINUTE_MS);
    expect(silence.patienceMs(19 * MINUTE_MS)).toBe(5000);
  });
});
