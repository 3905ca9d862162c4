import { describe, expect, test } from 'vitest';

import { ConfigError } from '../../../src/config/config-error.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { planReload } from '../../../src/config/reload.ts';
import type { Config } from '../../../src/config/schema.ts';
import { namedSettings } from '../../../src/config/setting-name.ts';

const all = { command: 'registry', settings: ['log', 'registry', 'agent', 'tls'] };

async function load(settings: object): Promise<Config> {
  const tls = { mode: 'off' };
  const agent = { listen: '127.0.0.1:7490' };
  const text = JSON.stringify({ tls, agent, ...settings });
  return loadConfig({ file: '/etc/salvor.json', content: { text } });
}

describe('planReload', () => {
  test('planReload takes over reloadable settings and names the others that changed', async () => {
    const running = await load({ log: { level: 'warn' } });
    const loaded = await load({
      log: { level: 'debug' },
      registry: {
        listen: '127.0.0.1:1',
        allow: ['*.test'],
        upstreams: { 'a.test': { peers: 'prefer' } },
        limits: { maxStreams: 7 },
      },
    });
    const plan = planReload({ running, loaded }, all);
    expect(plan.changed).toEqual(['log.level', 'registry.allow', 'registry.upstreams']);
    expect(plan.needRestart).toEqual(['registry.listen', 'registry.limits.maxStreams']);
    expect(plan.config).toEqual({
      ...running,
      log: loaded.log,
      registry: {
        ...running.registry,
        allow: loaded.registry.allow,
        upstreams: loaded.registry.upstreams,
      },
    });
  });

  test('planReload finds nothing between a configuration and itself, planned or loaded', async () => {
    const settings = { registry: { upstreams: { 'a.test': {} }, policies: [{ match: '*' }] } };
    const running = await load({});
    const { config } = planReload({ running, loaded: await load(settings) }, all);
    const again = planReload({ running: config, loaded: await load(settings) }, all);
    expect([again.changed, again.needRestart]).toEqual([[], []]);
  });

  test('planReload leaves alone what does not matter to the command', async () => {
    const running = await load({});
    const loaded = await load({ registry: { allow: ['a.test'], listen: '127.0.0.1:1' } });
    const plan = planReload({ running, loaded }, { command: 'agent', settings: ['log', 'agent'] });
    expect(plan).toEqual({ config: running, changed: [], needRestart: [] });
  });

  test('planReload refuses members that do not go with the running TLS mode', async () => {
    const running = await load({});
    const members = { static: [{ name: 'b', address: '10.0.0.2:7490' }] };
    const tls = { mode: 'mutual', ca: '/ca', certificate: '/crt', key: '/key' };
    const loaded = await load({ agent: { members }, tls });
    const plan = (): unknown => planReload({ running, loaded }, all);
    expect(plan).toThrow(ConfigError);
    expect(plan).toThrow(/agent\.members\.static\[0\]\.address .*as tls\.mode is off/);
  });

  test('namedSettings marks as reloadable exactly what running processes take over', () => {
    expect(namedSettings.filter(({ setting }) => setting.reloadable).map(({ key }) => key)).toEqual(
      [
        'log.level',
        'registry.readyAfter',
        'registry.defaultUpstream',
        'registry.allow',
        'registry.deny',
        'registry.upstreams',
        'registry.mirrors',
        'registry.policies',
        'agent.bootstrap.repositories',
        'agent.copies.wanted',
        'agent.copies.policies',
        'agent.copies.budgetBytes',
        'agent.copies.budgetPercent',
        'agent.copies.releaseAtPercent',
        'agent.copies.dropAtPercent',
        'agent.copies.pollIntervalMs',
        'agent.members.source',
        'agent.members.static',
        'agent.members.kubernetes.namespace',
        'agent.members.kubernetes.service',
        'agent.members.kubernetes.kubeconfig',
        'agent.members.dns.name',
        'agent.members.dns.port',
        'agent.members.dns.intervalMs',
      ],
    );
  });
});
