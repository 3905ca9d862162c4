import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { RegistryRules } from '../../../../src/policy/registry-rules.ts';
import { Upstreams } from '../../../../src/registry/upstream/upstreams.ts';
import type { Upstream } from '../../../../src/registry/upstream/upstream.ts';

const DRAIN_MS = 20_000;
const open: RegistryRules = { allow: ['*'], deny: [], configured: [] };

let made: string[];
let closed: Upstream[];
let upstreams: Upstreams;

function create(name: string): Upstream {
  made.push(name);
  const upstream = { name, close: async () => void closed.push(upstream) } as unknown as Upstream;
  return upstream;
}

/** Gets one that must be there. */
function get(name: string): Upstream {
  const upstream = upstreams.get(name);
  expect(upstream?.name).toBe(name);
  return upstream!;
}

function apply(change: { policy?: Partial<RegistryRules>; changed?: string[] }): string[] {
  return upstreams.apply({
    policy: { ...open, ...change.policy },
    create,
    isChanged: (name) => change.changed?.includes(name) === true,
  });
}

beforeEach(() => {
  vi.useFakeTimers();
  made = [];
  closed = [];
  upstreams = new Upstreams({ ...open, drainMs: DRAIN_MS }, { create });
});

afterEach(async () => {
  await upstreams.close();
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

describe('Upstreams', () => {
  it('Upstreams makes an upstream once', () => {
    expect(get('a.test')).toBe(get('a.test'));
    expect(made).toEqual(['a.test']);
  });

  it.each([
    [{ allow: ['*.ok'] }, 'a.ok', true],
    [{ allow: ['*.ok'] }, 'a.test', false],
    [{ deny: ['a.*'] }, 'a.test', false],
    [{}, '127.0.0.1:5000', false],
    [{ configured: ['127.0.0.1:5000'] }, '127.0.0.1:5000', true],
  ])('Upstreams under %j says whether %s may be asked: %s', (policy, name, isAllowed) => {
    apply({ policy });
    expect(upstreams.get(name) !== undefined).toBe(isAllowed);
  });

  it('Upstreams.apply keeps unchanged upstreams as they are', () => {
    const [a, b] = [get('a.test'), get('b.test')];
    expect(apply({ policy: { deny: ['c.test'] }, changed: ['b.test', 'd.test'] })).toEqual([
      'b.test',
    ]);
    expect(get('a.test')).toBe(a);
    expect(get('b.test')).not.toBe(b);
    expect(upstreams.all()).toContain(a);
    expect(closed).toEqual([b]);
  });

  it('Upstreams.apply gives up what is no longer allowed', () => {
    const a = get('a.test');
    expect(apply({ policy: { allow: ['b.test'] } })).toEqual(['a.test']);
    expect(upstreams.get('a.test')).toBeUndefined();
    expect(upstreams.all()).toEqual([]);
    expect(closed).toEqual([a]);
    apply({});
    expect(get('a.test')).not.toBe(a);
  });

  it('Upstreams.apply lets requests end on the upstream that they began with', () => {
    const a = get('a.test');
    const first = upstreams.hold(a);
    const second = upstreams.hold(a);
    apply({ changed: ['a.test'] });
    const release = upstreams.hold(get('a.test'));
    first();
    release();
    expect(closed).toEqual([]);
    second();
    expect(closed).toEqual([a]);
  });

  it('Upstreams closes a replaced upstream whose requests take too long', async () => {
    const a = get('a.test');
    const release = upstreams.hold(a);
    apply({ changed: ['a.test'] });
    await vi.advanceTimersByTimeAsync(DRAIN_MS - 1);
    expect(closed).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(closed).toEqual([a]);
    release();
    expect(closed).toEqual([a]);
  });

  it('Upstreams closes replaced upstreams with all others at the end', async () => {
    const a = get('a.test');
    const release = upstreams.hold(a);
    apply({ changed: ['a.test'] });
    const next = get('a.test');
    await upstreams.close();
    expect(closed).toEqual([a, next]);
    release();
    expect(closed).toEqual([a, next]);
    apply({ policy: { allow: [] } });
  });

  it('Upstreams.apply changes nothing when an upstream cannot be made', () => {
    const [a, b] = [get('a.test'), get('b.test')];
    const half: Upstream[] = [];
    const failing = (): unknown =>
      upstreams.apply({
        policy: { ...open, deny: ['c.test'] },
        create: (name) => {
          if (name === 'b.test') throw new Error('Cannot read /ca.pem');
          half.push(create(name));
          return half[0]!;
        },
        isChanged: () => true,
      });
    expect(failing).toThrow('Cannot read /ca.pem');
    expect(closed).toEqual(half);
    expect([get('a.test'), get('b.test')]).toEqual([a, b]);
    expect(upstreams.get('c.test')).toBeDefined();
  });

  it('Upstreams keeps one that is in use open when it makes room for others', () => {
    const a = get('a.test');
    const release = upstreams.hold(a);
    for (let index = 0; index < 256; index += 1) get(`${index}.test`);
    expect(upstreams.all()).not.toContain(a);
    expect(closed).toEqual([]);
    release();
    expect(closed).toEqual([a]);
  });
});
