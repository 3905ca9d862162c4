import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import {
  readContainerdConfig,
  type ContainerdConfig,
} from '../../../../src/node/containerd-config/containerd-config.ts';

let hostRoot: string;
const path = '/etc/containerd/config.toml';
const cri1 = 'plugins."io.containerd.grpc.v1.cri"';
const cri2 = 'plugins."io.containerd.cri.v1.images"';

beforeEach(async () => {
  hostRoot = await mkdtemp(join(tmpdir(), 'salvor-config-'));
});

afterEach(async () => {
  await rm(hostRoot, { recursive: true, force: true });
});

async function put(file: string, lines: readonly string[]): Promise<void> {
  const target = join(hostRoot, file);
  await mkdir(dirname(target), { recursive: true });
  await writeFile(target, lines.join('\n'));
}

async function read(version?: string): Promise<ContainerdConfig> {
  return readContainerdConfig({ path, hostRoot, ...(version === undefined ? {} : { version }) });
}

describe('readContainerdConfig', () => {
  test('takes what each release takes for granted without a file', async () => {
    for (const version of ['1.6.20~ds1', '1.7.34', '2.0.5', '2.1.9']) {
      expect(await read(version)).toMatchObject({ files: [], configPath: '', roots: [] });
    }
    for (const version of ['2.2.0', 'v2.3.4']) {
      const found = await read(version);
      expect(found.roots).toEqual(['/etc/containerd/certs.d', '/etc/docker/certs.d']);
      expect(found).toMatchObject({ isConfigPathDefault: true, pullsWith: 'transfer service' });
      expect(found.discardsUnpackedLayers).toBe(false);
    }
    expect((await read('2.0.5')).pullsWith).toBe('client');
    expect(await read()).toMatchObject({ roots: [], fileVersion: undefined });
  });

  test('reads files of 1.x, and as 2.x takes them', async () => {
    await put(path, [
      'version = 2',
      `[${cri1}.containerd]`,
      'discard_unpacked_layers = true',
      'snapshotter = "stargz"',
      `[${cri1}.containerd.runtimes.runc]`,
      'runtime_type = "io.containerd.runc.v2"',
      `[${cri1}.registry]`,
      'config_path = "/etc/containerd/certs.d:/etc/docker/certs.d"',
    ]);
    for (const version of [undefined, '1.6.20', '1.7.34', '2.0.5', '2.2.7', '2.3.4']) {
      expect(await read(version)).toMatchObject({
        roots: ['/etc/containerd/certs.d', '/etc/docker/certs.d'],
        isConfigPathDefault: false,
        discardsUnpackedLayers: true,
        snapshotter: 'stargz',
        pullsWith: 'client',
      });
    }
    expect((await read('2.2.7')).clientBecause).toBe('discard_unpacked_layers');
  });

  test('loses what the migration of 2.x loses: no runtimes, no containerd table', async () => {
    await put(path, [
      'version = 2',
      `[${cri1}.containerd]`,
      'discard_unpacked_layers = true',
      `[${cri1}.registry]`,
      'config_path = "/x"',
    ]);
    expect(await read('1.7.34')).toMatchObject({ discardsUnpackedLayers: true, roots: ['/x'] });
    expect(await read('2.2.7')).toMatchObject({
      discardsUnpackedLayers: false,
      roots: ['/x'],
      pullsWith: 'transfer service',
    });
  });

  test('leaves out the old table in a file of version 3, except where 2.3 migrates it', async () => {
    await put(path, ['version = 3', `[${cri1}.registry]`, 'config_path = "/old"']);
    expect((await read('2.1.9')).configPath).toBe('');
    expect((await read('2.3.4')).configPath).toBe('/old');
  });

  test('merges imports key by key in 2.x and table by table in 1.x', async () => {
    await put(path, [
      'version = 2',
      'imports = ["conf.d/*.toml", "/etc/containerd/extra.toml"]',
      `[${cri1}.registry]`,
      'config_path = "/main"',
    ]);
    await put('/etc/containerd/conf.d/20.toml', [
      'version = 2',
      `[${cri1}]`,
      'max_concurrent_downloads = 5',
    ]);
    await put('/etc/containerd/conf.d/10.toml', ['version = 2']);
    await put('/etc/containerd/extra.toml', ['version = 2']);
    const second = await read('2.2.7');
    expect(second.files).toEqual([
      path,
      '/etc/containerd/conf.d/10.toml',
      '/etc/containerd/conf.d/20.toml',
      '/etc/containerd/extra.toml',
    ]);
    expect(second).toMatchObject({ configPath: '/main', pullsWith: 'client' });
    expect(second.clientBecause).toBe('max_concurrent_downloads');
    expect((await read('1.7.34')).configPath).toBe('');
  });

  test('lets imports of 2.x set things back', async () => {
    await put(path, [
      'version = 3',
      'imports = ["/etc/containerd/b.toml", "/etc/containerd/config.toml"]',
      `[${cri2}]`,
      'discard_unpacked_layers = true',
      `[${cri2}.registry]`,
      'config_path = "/x"',
    ]);
    await put('/etc/containerd/b.toml', [
      'version = 3',
      `[${cri2}]`,
      'discard_unpacked_layers = false',
      'use_local_image_pull = true',
      `[${cri2}.registry]`,
      'config_path = ""',
    ]);
    expect(await read('2.1.9')).toMatchObject({
      configPath: '',
      discardsUnpackedLayers: false,
      clientBecause: 'use_local_image_pull',
    });
  });

  test('names mirrors and credentials in the old form', async () => {
    await put(path, [
      'version = 3',
      `[${cri2}.registry.mirrors."docker.io"]`,
      'endpoint = ["https://mirror.test"]',
      `[${cri2}.registry.configs."mirror.test".auth]`,
      'username = "robot"',
      'password = "secret"',
    ]);
    const found = await read('2.2.7');
    expect(found.legacyMirrors).toEqual(['docker.io']);
    expect(found.legacyConfigs).toEqual(['mirror.test']);
    expect(found).toMatchObject({ configPath: '', clientBecause: 'registry.mirrors' });
    expect(JSON.stringify(found)).not.toContain('secret');
  });

  test('reads the short names of files without a version', async () => {
    await put(path, ['[plugins.cri.registry]', 'config_path = "/x"']);
    expect(await read('1.6.20')).toMatchObject({ configPath: '/x', fileVersion: 1 });
  });

  test('says what is wrong with files, without showing what stands there', async () => {
    await put(path, ['version = 3', 'imports = ["missing.toml", "broken.toml", "newer.toml"]']);
    await put('/etc/containerd/broken.toml', ['password = "secret', 'x = 1']);
    await put('/etc/containerd/newer.toml', ['version = 4']);
    const { problems } = await read('2.3.4');
    expect(problems.map((each) => each.path)).toEqual([
      '/etc/containerd/missing.toml',
      '/etc/containerd/broken.toml',
      '/etc/containerd/newer.toml',
    ]);
    expect(problems[1]!.reason).toMatch(/^line 1, column \d+: /);
    expect(JSON.stringify(problems)).not.toContain('secret');
  });

  test('takes config_path beside mirrors for the mistake that it is', async () => {
    await put(path, [
      'version = 3',
      `[${cri2}.registry]`,
      'config_path = "/x"',
      `[${cri2}.registry.mirrors."*"]`,
      'endpoint = ["https://mirror.test"]',
    ]);
    expect((await read('2.2.7')).problems).toHaveLength(1);
  });

  test('refuses a version that is none', async () => {
    await expect(read('newest')).rejects.toThrow('Cannot use "newest" as a version of containerd');
  });
});
