import { describe, expect, test } from 'vitest';

import { checkHosts } from '../../../../src/node/doctor/hosts-checks.ts';
import type { Facts, HostsDirectory } from '../../../../src/node/doctor/facts.ts';
import { settings } from './settings.ts';

const own = '[host."http://127.0.0.1:7480"]\n';
const good = `${own}capabilities = ["pull", "resolve"]\n`;
const root = '/etc/containerd/certs.d';

function idsOf(directories: readonly HostsDirectory[], rest: Partial<Facts['hosts']> = {}) {
  const hosts = {
    directories,
    passedOver: [],
    defaultPath: `${root}/_default/hosts.toml`,
    version: '2.2.0',
    ...rest,
  };
  return checkHosts({ hosts, settings: settings() }).map(({ id }) => id);
}

function file(text: string | undefined, registry?: string): HostsDirectory {
  return { path: `${root}/${registry ?? '_default'}`, registry, text };
}

describe('checkHosts', () => {
  test.each<[string, string, string[]]>([
    ['nothing of what salvor hosts writes', `${good}dial_timeout = "2s"\n`, []],
    ['nothing of localhost', good.replace('127.0.0.1', 'localhost'), []],
    ['nothing of a key that containerd passes over', `${good}colour = "red"\n`, []],
    ['broken TOML', '[host', ['hosts-broken']],
    ['a value of a wrong kind', `${own}override_path = 1\n`, ['hosts-broken']],
    ['an unknown capability', `${own}capabilities = ["proxy"]\n`, ['hosts-unknown-capability']],
    ['that tags are not asked', `${own}capabilities = ["pull"]\n`, ['hosts-no-resolve']],
    ['certificates for http', `${good}ca = "a.crt"\n`, ['hosts-tls-on-http']],
    ['one server for all', `server = "https://s.test"\n${good}`, ['hosts-default-server']],
    ['a host before Salvor', `[host."https://m.test"]\n${good}`, ['hosts-not-first']],
    ['another port', good.replace('7480', '5000'), ['hosts-wrong-port']],
    ['somebody else', '[host."https://m.test"]\n', ['hosts-without-salvor']],
    ['an empty file', '\n', ['hosts-default-missing']],
  ])('checkHosts finds %s in _default', (_, text, ids) => {
    expect(idsOf([file(text)])).toEqual(ids);
  });

  test('checkHosts takes a server of one registry for its own affair', () => {
    expect(idsOf([file(good), file(`server = "https://s.test"\n${good}`, 'a.test')])).toEqual([]);
  });

  test('checkHosts finds what is missing, hides _default or cannot be read', () => {
    expect(idsOf([])).toEqual(['hosts-default-missing']);
    expect(idsOf([file(good), file(undefined, 'a.test')])).toEqual(['hosts-shadowed']);
    const unreadable = { ...file(undefined, 'a.test'), failure: 'it is no file' };
    expect(idsOf([file(good), unreadable])).toEqual(['hosts-unreadable']);
    const passedOver = [{ path: '/etc/docker/certs.d/a.test', reason: 'hidden' }];
    expect(idsOf([file(good)], { passedOver })).toEqual(['hosts-passed-over']);
  });

  test('checkHosts knows which words and times a release takes', () => {
    const referrers = [file(`${own}capabilities = ["pull", "resolve", "referrers"]\n`)];
    expect(idsOf(referrers, { version: '2.1.9' })).toEqual(['hosts-unknown-capability']);
    expect(idsOf(referrers)).toEqual([]);
    const dials = [file(`${good}dial_timeout = "2s"\n`)];
    expect(idsOf(dials, { version: '2.0.8' })).toEqual(['hosts-tls-on-http']);
    expect(idsOf(dials, { version: '1.7.0' })).toEqual([]);
  });
});
