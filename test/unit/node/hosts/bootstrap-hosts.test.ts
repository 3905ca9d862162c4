import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import {
  runBootstrapHosts,
  type BootstrapHostsOptions,
} from '../../../../src/cli/bootstrap-hosts.ts';
import { parseHostsToml } from '../../../../src/node/hosts/hosts-toml.ts';
import { HostsRunner } from './hosts-runner.ts';

let runner: HostsRunner;
let dir: string;
let path: string;

beforeEach(async () => {
  runner = await HostsRunner.create();
  dir = join(runner.tree, 'certs.d');
  path = join(dir, '_default', 'hosts.toml');
});

afterEach(() => runner.remove());

const paths = { ca: '/b/ca.crt', clientCert: '/b/tls.crt', clientKey: '/b/tls.key' };
const bake = (options: Partial<BootstrapHostsOptions> = {}): Promise<string> =>
  runBootstrapHosts({ ...paths, neighbour: ['10.0.0.1', '10.0.0.2:7000'], ...options });
const text = (): Promise<string> => readFile(path, 'utf8');

describe('salvor hosts bootstrap', () => {
  test('salvor hosts bootstrap names neighbours in order, with certificates', async () => {
    const neighbour = ['10.0.0.1', '10.0.0.2:7000', 'fd00::1', '[fd00::2]:7000', 'node-c'];
    const { hosts, server } = parseHostsToml(await bake({ neighbour }));
    expect(hosts.map(({ url }) => url)).toEqual([
      'https://10.0.0.1:7492',
      'https://10.0.0.2:7000',
      'https://[fd00::1]:7492',
      'https://[fd00::2]:7000',
      'https://node-c:7492',
    ]);
    for (const host of hosts) {
      expect(host.capabilities).toEqual(['pull', 'resolve']);
      expect(host.ca).toEqual(['/b/ca.crt']);
      expect(host.client).toEqual([['/b/tls.crt', '/b/tls.key']]);
      expect(host.skipVerify).toBe(false);
    }
    expect(server.url).toBeUndefined();
  });

  test('salvor hosts bootstrap names a neighbour once, however often it is given', async () => {
    const neighbour = ['10.0.0.1', '10.0.0.2', '10.0.0.1:7492', 'fd00::1', '[fd00::1]'];
    const { hosts } = parseHostsToml(await bake({ neighbour }));
    expect(hosts.map(({ url }) => url)).toEqual([
      'https://10.0.0.1:7492',
      'https://10.0.0.2:7492',
      'https://[fd00::1]:7492',
    ]);
  });

  test.each([
    ['nonsense [', 'illegal character'],
    ['[host."https://10.0.0.1:7492"]\n', 'no place for another host'],
  ])('salvor hosts bootstrap leaves a file with %j alone, and names it', async (before, reason) => {
    await mkdir(join(dir, '_default'), { recursive: true });
    await writeFile(path, before);
    await expect(bake({ dir })).rejects.toThrow(`Cannot write ${path}: `);
    await expect(bake({ dir })).rejects.toThrow(reason);
    expect(await text()).toBe(before);
  });

  test('salvor hosts bootstrap writes the directory that containerd looks into', async () => {
    expect(await bake({ dir })).toBe(`wrote ${path}\n`);
    expect(await text()).toBe(await bake());
    const registry = 'registry.test:5000';
    await bake({ dir, registry });
    const own = join(dir, 'registry.test_5000_', 'hosts.toml');
    expect(await readFile(own, 'utf8')).toBe(await bake());
  });

  test('salvor hosts bootstrap puts neighbours before what is there, once', async () => {
    await mkdir(join(dir, '_default'), { recursive: true });
    const before = 'server = "https://a.test"\n[host."https://mirror.test"]\n';
    await writeFile(path, before);
    await bake({ dir, neighbour: ['10.0.0.9'] });
    await bake({ dir });
    const { hosts, server } = parseHostsToml(await text());
    expect(hosts.map(({ url }) => url)).toEqual([
      'https://10.0.0.1:7492',
      'https://10.0.0.2:7000',
      'https://mirror.test',
    ]);
    expect(server.url).toBe('https://a.test');
  });

  test.each([
    [{ neighbour: ['10.0.0.1:0'] }, 'Cannot use 10.0.0.1:0 as a neighbour'],
    [{ neighbour: ['https://10.0.0.1'] }, 'as a neighbour'],
    [{ neighbour: ['10.0.0.1/v2'] }, 'as a neighbour'],
    [{ neighbour: ['10.0.0.300'] }, 'as a neighbour'],
    [{ ca: 'ca.crt' }, 'Cannot use ca.crt as --ca: give the absolute path'],
    [{ clientKey: './k' }, 'as --client-key'],
    [{ dir: '/tmp/none', registry: '../x' }, 'Cannot use ../x as a registry'],
  ])('salvor hosts bootstrap refuses %j', async (options, message) => {
    await expect(bake(options)).rejects.toThrow(message);
  });

  test('salvor hosts takes neighbours out, and gives them back when it restores', async () => {
    await bake({ dir });
    const baked = await text();
    const output = await runner.write();
    expect(output.files.find((file) => file.path === path)).toMatchObject({
      state: 'joined',
      notes: ['the entry of `salvor hosts bootstrap` is replaced'],
    });
    const { hosts } = parseHostsToml(await text());
    expect(hosts.map(({ url }) => url)).toEqual(['http://127.0.0.1:7480']);
    expect(await text()).not.toContain('bootstrap');
    await expect(bake({ dir })).rejects.toThrow('Salvor is at work there already');
    expect(await runner.write()).toMatchObject({ isChanged: false });
    await runner.restore();
    expect(await text()).toBe(baked);
  });

  test('salvor hosts knows neighbours in a file with lines of Windows', async () => {
    await bake({ dir });
    await writeFile(path, (await text()).replaceAll('\n', '\r\n'));
    const { files } = await runner.write();
    expect(files.find((file) => file.path === path)).toMatchObject({
      notes: ['the entry of `salvor hosts bootstrap` is replaced'],
    });
    expect(await text()).not.toContain('10.0.0.1');
  });

  test('salvor hosts takes out neighbours that come with a new image of the machine', async () => {
    await runner.write();
    await writeFile(path, await bake());
    await runner.write();
    expect(await text()).not.toContain('10.0.0.1');
  });
});
