import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { openConfig } from '../../../src/cli/config-source.ts';
import { ConfigError } from '../../../src/config/config-error.ts';
import { loadConfig } from '../../../src/config/load.ts';
import type { Config } from '../../../src/config/schema.ts';

let stateDirectory: string;
let path: string;

beforeEach(async () => {
  stateDirectory = await mkdtemp(join(tmpdir(), 'salvor-hosts-'));
  path = join(stateDirectory, 'upstreams', 'hosts.json');
  await mkdir(join(stateDirectory, 'upstreams'));
});

afterEach(async () => {
  await rm(stateDirectory, { recursive: true });
});

async function put(content: unknown): Promise<void> {
  await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content));
}

async function load(
  upstreams: object = {},
  options: { readonly command?: string } = {},
): Promise<Config['registry']> {
  const env = { SALVOR_REGISTRY_UPSTREAMS: JSON.stringify(upstreams) };
  const flags = { 'node.stateDirectory': stateDirectory };
  return (await loadConfig({ env, flags, ...options })).registry;
}

describe('registry.hostsFile', () => {
  test('registry.hostsFile need not exist', async () => {
    expect(await load()).toMatchObject({ hostsFile: path, upstreams: {}, mirrors: [] });
  });

  test('registry.hostsFile gives mirrors and upstreams, with files beside it', async () => {
    await put({
      mirrors: [{ url: 'https://cache.test', namespace: true, headersFile: 'all.headers' }],
      upstreams: {
        'a.test': {
          endpoints: [
            { url: 'https://a.test', ca: 'a.pem', clientKey: '/k', clientCertificate: 'c' },
          ],
        },
        'docker.io': {},
      },
    });
    const { mirrors, upstreams } = await load();
    const beside = join(stateDirectory, 'upstreams');
    expect(mirrors).toMatchObject([{ namespace: true, headersFile: `${beside}/all.headers` }]);
    expect(upstreams['a.test']).toMatchObject({
      endpoints: [{ ca: `${beside}/a.pem`, clientKey: '/k', clientCertificate: `${beside}/c` }],
    });
    expect(upstreams['docker.io']).toMatchObject({ url: 'https://registry-1.docker.io' });
  });

  test('registry.hostsFile is weaker than what is configured, upstream by upstream', async () => {
    await put({ upstreams: { 'a.test': { peers: 'prefer' }, 'b.test': { peers: 'prefer' } } });
    const { upstreams } = await load({ 'a.test': { url: 'https://elsewhere.test' } });
    expect(upstreams['a.test']).toMatchObject({ url: 'https://elsewhere.test', peers: 'fallback' });
    expect(upstreams['b.test']).toMatchObject({ peers: 'prefer' });
  });

  test.each([
    ['{', 'a readable JSON or YAML file'],
    [{ listen: '0.0.0.0:1' }, 'nothing but mirrors and upstreams'],
    [{ upstreams: { 'a.test': { uri: 'x' } } }, 'a known key'],
    [{ mirrors: [{ url: 'ftp://a' }] }, 'an http or https URL'],
    [{ mirrors: [{ url: 'http://a', clientKey: 'k' }] }, 'a path beside clientKey'],
    [[], 'a map'],
  ])('registry.hostsFile that says %j is a mistake', async (content, expected) => {
    await put(content);
    const failure = await load().catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(ConfigError);
    expect((failure as ConfigError).message).toContain(expected);
    await expect(load({}, { command: 'agent' })).rejects.not.toThrow(expected);
  });

  test('openConfig remembers what the file held, and reads and loads it again', async () => {
    await put({ upstreams: { 'a.test': {} } });
    const flags = { 'node.stateDirectory': stateDirectory, 'registry.agentSocket': '' };
    const { config, source } = await openConfig({
      command: 'registry',
      settings: ['registry'],
      flags,
    });
    expect(Object.keys(config.registry.upstreams)).toEqual(['a.test']);
    expect(source.paths).toEqual([path]);
    expect(await source.read()).toEqual(source.contents);
    await put({ upstreams: { 'b.test': {} } });
    const contents = await source.read();
    expect(contents).not.toEqual(source.contents);
    expect(Object.keys((await source.load(contents)).registry.upstreams)).toEqual(['b.test']);
    await rm(path);
    expect((await source.load(await source.read())).registry.upstreams).toEqual({});
  });
});
