import { describe, expect, test } from 'vitest';
import { planFor } from '../../../src/registry/plan.ts';
import {
  allowsStale,
  DEFAULT_POLICY,
  Policies,
  type PolicyRule,
} from '../../../src/policy/policy.ts';

function rule(match: string, more: Partial<PolicyRule> = {}): PolicyRule {
  return { ...DEFAULT_POLICY, match, ...more };
}

describe('Policies', () => {
  test('let the first rule that matches decide', () => {
    const policies = new Policies([
      rule('docker.io/library/*', { mode: 'bypass' }),
      rule('docker.io/*', { mode: 'observe' }),
    ]);
    expect(policies.for('docker.io/library/nginx', 'fallback').mode).toBe('bypass');
    expect(policies.for('docker.io/team/app', 'fallback').mode).toBe('observe');
    expect(policies.for('registry.test/team/app', 'fallback').mode).toBe('serve');
  });

  test('take dots as dots and match whole names', () => {
    const policies = new Policies([rule('registry.test/app', { mode: 'bypass' })]);
    expect(policies.for('registryXtest/app', 'fallback').mode).toBe('serve');
    expect(policies.for('registry.test/app/more', 'fallback').mode).toBe('serve');
  });

  test("leave the upstream's own setting where no rule matches", () => {
    expect(new Policies([]).for('registry.test/app', 'prefer').peers).toBe('prefer');
  });
});

describe('planFor', () => {
  test.each([
    { what: 'a healthy upstream first', policy: {}, isDown: false, first: 'upstream', peers: true },
    { what: 'nodes first when it is down', policy: {}, isDown: true, first: 'peers', peers: true },
    {
      what: 'nodes first where they are preferred',
      policy: { peers: 'prefer' as const },
      isDown: false,
      first: 'peers',
      peers: true,
    },
    {
      what: 'no nodes without consent',
      policy: { access: 'online' as const, peers: 'prefer' as const },
      isDown: true,
      first: 'upstream',
      peers: false,
    },
    {
      what: 'no nodes while observing',
      policy: { mode: 'observe' as const },
      isDown: true,
      first: 'upstream',
      peers: false,
    },
  ])('asks $what', ({ policy, isDown, first, peers }) => {
    expect(planFor({ ...DEFAULT_POLICY, ...policy }, { isDown })).toEqual({ first, peers });
  });
});

describe('allowsStale', () => {
  test('takes each trouble for what it is', () => {
    const policy = { ...DEFAULT_POLICY, staleOn: ['unreachable'] };
    expect(allowsStale(policy, 'refused')).toBe(true);
    expect(allowsStale(policy, 'timeout')).toBe(true);
    expect(allowsStale(policy, 'server_error')).toBe(false);
    expect(allowsStale(policy, 'rate_limited')).toBe(false);
    expect(allowsStale(policy, 'gone')).toBe(false);
  });

  test('leaves withdrawn tags withdrawn unless told', () => {
    expect(allowsStale(DEFAULT_POLICY, 'gone')).toBe(false);
    expect(allowsStale({ ...DEFAULT_POLICY, staleOn: ['gone'] }, 'gone')).toBe(true);
  });

  test('never without consent', () => {
    expect(allowsStale({ ...DEFAULT_POLICY, access: 'online' }, 'refused')).toBe(false);
  });
});
