import { describe, expect, test } from 'vitest';

import type { Facts } from '../../../../src/node/doctor/facts.ts';
import { checkConfig, checkRuntime } from '../../../../src/node/doctor/runtime-checks.ts';
import { settings } from './settings.ts';

const nowMs = Date.UTC(2026, 6, 1);

function config(changes: Partial<Facts['config']> = {}): Facts['config'] {
  return {
    files: ['/etc/containerd/config.toml'],
    problems: [],
    fileVersion: 3,
    configPath: '/etc/containerd/certs.d',
    isConfigPathDefault: false,
    roots: ['/etc/containerd/certs.d'],
    legacyMirrors: [],
    legacyConfigs: [],
    discardsUnpackedLayers: false,
    snapshotter: 'overlayfs',
    pullsWith: 'transfer service',
    clientBecause: undefined,
    ignoredTables: [],
    isLazySnapshotter: false,
    isOneDirectory: false,
    ...changes,
  };
}

const both = {
  configPath: '/etc/containerd/certs.d:/etc/docker/certs.d',
  roots: ['/etc/containerd/certs.d', '/etc/docker/certs.d'],
};

describe('checkRuntime', () => {
  test.each([
    ['2.3.4', []],
    ['1.7.28-k3s1', []],
    ['1.6.20~ds1', ['containerd-end-of-life']],
    ['2.1.9', ['containerd-end-of-life']],
    ['1.5.9', ['containerd-too-old']],
  ])('checkRuntime says of %s %j', (version, ids) => {
    expect(checkRuntime({ runtime: { version }, nowMs }).map(({ id }) => id)).toEqual(ids);
  });

  test('checkRuntime says why containerd cannot be asked', () => {
    const [found] = checkRuntime({ runtime: { failure: 'connection refused' }, nowMs });
    expect(found).toMatchObject({ id: 'containerd-unreachable', found: 'connection refused' });
  });
});

describe('checkConfig', () => {
  test.each<[string, Partial<Facts['config']>, string[]]>([
    ['nothing of one root', {}, []],
    ['that there is none', { configPath: '', roots: [] }, ['config-path-unset']],
    ['that two are taken for one', both, ['two-roots']],
    ['nothing of two for the client', { ...both, pullsWith: 'client' }, []],
    ['nothing of two with the way out', { ...both, isOneDirectory: true }, []],
    ['mirrors', { configPath: '', roots: [], legacyMirrors: ['docker.io'] }, ['legacy-mirrors']],
    ['a problem', { problems: [{ path: '/a', reason: 'b' }] }, ['containerd-config-broken']],
    ['a table that is ignored', { ignoredTables: ['/a'] }, ['ignored-table']],
    ['a lazy snapshotter', { isLazySnapshotter: true }, ['lazy-snapshotter']],
    ['nothing of layers that the keeper keeps', { discardsUnpackedLayers: true }, []],
  ])('checkConfig finds %s', (_, changes, ids) => {
    const found = checkConfig({ config: config(changes), settings: settings() });
    expect(found.map(({ id }) => id)).toEqual(ids);
  });

  test('checkConfig finds layers that nobody keeps', () => {
    const found = checkConfig({
      config: config({ discardsUnpackedLayers: true }),
      settings: settings({ isKeeperOff: true }),
    });
    expect(found.map(({ id }) => id)).toEqual(['layers-discarded']);
  });

  test('checkConfig gives a way out of two roots that names both', () => {
    const [found] = checkConfig({ config: config(both), settings: settings() });
    expect(found?.fix).toContain(
      "mkdir -p '/etc/containerd/certs.d:/etc/docker' && " +
        "ln -s /etc/containerd/certs.d '/etc/containerd/certs.d:/etc/docker/certs.d'",
    );
  });
});
