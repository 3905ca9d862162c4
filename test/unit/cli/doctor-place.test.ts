import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { configSeenFrom, hostsSeenFrom } from '../../../src/cli/doctor-place.ts';
import { loadConfig } from '../../../src/config/load.ts';

let hostRoot: string;

beforeEach(async () => {
  hostRoot = await mkdtemp(join(tmpdir(), 'salvor-doctor-place-'));
});

afterEach(() => rm(hostRoot, { recursive: true, force: true }));

test('configSeenFrom finds everything that a configuration names below the root of the node', async () => {
  const place = {
    ca: '/no/such/ca.pem',
    clientCertificate: '/no/such/client.pem',
    clientKey: '/no/such/client-key.pem',
    headersFile: '/no/such/headers',
  };
  const file = join(hostRoot, 'no/such/config.json');
  await mkdir(join(hostRoot, 'no/such'), { recursive: true });
  const registry = {
    mirrors: [{ url: 'https://mirror.test', ...place }],
    upstreams: {
      'one.test': { url: 'https://one.test', ...place },
      'two.test': { endpoints: [{ url: 'https://two.test', ...place }] },
    },
  };
  await writeFile(file, JSON.stringify({ registry }));
  const config = await loadConfig({ file });

  const seen = await configSeenFrom(config, hostRoot);

  const [mirror] = seen.registry.mirrors;
  const { 'one.test': one, 'two.test': two } = seen.registry.upstreams;
  const found = Object.entries(place).map(([key, path]) => [key, join(hostRoot, path)]);
  for (const each of [mirror, one, two?.endpoints[0]]) {
    expect(each).toMatchObject(Object.fromEntries(found) as object);
  }
  expect(await configSeenFrom(config, '/')).toEqual(config);
});

test('hostsSeenFrom has the doctor know the upstreams that salvor hosts found on the node', async () => {
  const directory = '/no/such/state/upstreams';
  await mkdir(join(hostRoot, directory), { recursive: true });
  const hosts = { upstreams: { 'found.test': { url: 'https://found.test', ca: 'ca.pem' } } };
  await writeFile(join(hostRoot, directory, 'hosts.json'), JSON.stringify(hosts));
  const config = await loadConfig({
    command: 'doctor',
    flags: { 'node.stateDirectory': '/no/such/state' },
    readHosts: hostsSeenFrom(hostRoot),
  });
  const seen = await configSeenFrom(config, hostRoot);
  expect(seen.registry.upstreams).toMatchObject({
    'found.test': { url: 'https://found.test', ca: join(hostRoot, directory, 'ca.pem') },
  });
});
