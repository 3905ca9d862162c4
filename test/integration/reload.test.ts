import { mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createAuthority, type Authority } from '../../src/rpc/certificates.ts';
import { faultImage, pushTo } from '../faults/matrix/fault-image.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { startFaultProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { MemoryRegistry } from '../support/memory-registry.ts';
import { get, getHash } from '../support/oci-client.ts';
import { freePort } from '../support/ports.ts';
import { Program } from '../support/process.ts';
import { sourceProgram } from '../support/program-path.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('reload');
const registryName = 'registry.test';
const mebibyte = 1024 ** 2;
const small = faultImage('reload small', { layerBytes: 1000 });
const big = faultImage('reload big', { layerBytes: 8 * mebibyte });
const observe = { match: '*', mode: 'observe' };
const bypassAll = [{ match: '*', mode: 'bypass' }];

/** A configuration as the file has it, in the parts that tests change. */
interface Settings {
  registry: { policies?: object; deny?: readonly string[]; allow?: unknown; listen?: string };
  agent: { members: { static: readonly { name: string; address: string }[] } };
}

let upstream: MemoryRegistry;
let proxy: FaultProxy;
let authority: Authority;
let nodeCount = 0;

beforeAll(async () => {
  upstream = await MemoryRegistry.start(scope());
  pushTo(upstream, small);
  pushTo(upstream, big);
  authority = await createAuthority();
});

beforeEach(async () => {
  proxy = await startFaultProxy(scope(), { targetPort: upstream.port });
});

async function createNode(): Promise<DirectoryNode> {
  nodeCount += 1;
  const name = `node-${nodeCount}`;
  const agentAddress = `127.0.0.1:${await freePort()}`;
  const members = [{ name, address: agentAddress }];
  const upstreams = { [registryName]: { url: proxy.url } };
  return DirectoryNode.create(scope(), { name, agentAddress, members, upstreams }, authority);
}

async function startRegistry(): Promise<DirectoryNode> {
  const node = await createNode();
  await node.startRegistry();
  return node;
}

async function settingsOf(path: string): Promise<Settings> {
  return JSON.parse(await readFile(path, 'utf8')) as Settings;
}

/** Changes a configuration file as editors do: a new one is renamed into place. */
async function edit(path: string, change: (settings: Settings) => void): Promise<void> {
  const settings = await settingsOf(path);
  change(settings);
  await writeFile(`${path}.new`, JSON.stringify(settings));
  await rename(`${path}.new`, path);
}

function manifestUrl(base: string, tag = small.tag): string {
  return `${base}/v2/team/app/manifests/${tag}?ns=${registryName}`;
}

async function statusOf(node: DirectoryNode): Promise<number> {
  return (await get(manifestUrl(node.url))).status;
}

async function metric(port: number, name: string): Promise<number> {
  const { body } = await get(`http://127.0.0.1:${port}/metrics`);
  const line = body
    .toString()
    .split('\n')
    .find((each) => each.startsWith(name));
  return Number(line?.split(' ').at(-1));
}

describe('salvor registry', () => {
  test('Registry takes a changed file over by itself', async () => {
    const node = await startRegistry();
    expect(await statusOf(node)).toBe(200);
    await edit(node.configPath, ({ registry }) => {
      registry.policies = bypassAll;
      registry.listen = '127.0.0.1:1';
    });
    const restart = await node.registry.waitForLine(/"msg":"changed settings need a restart"/);
    expect(JSON.parse(restart)).toMatchObject({ settings: ['registry.listen'] });
    const line = await node.registry.waitForLine(/"msg":"configuration reloaded"/);
    expect(JSON.parse(line)).toMatchObject({ changed: ['registry.policies'] });
    expect(await statusOf(node)).toBe(404);
    await waitFor(() => node.requests().length === 2);
    expect(node.requests().map(({ decision }) => decision)).toEqual(['upstream', 'bypass']);

    const mark = node.registry.lineCount;
    await edit(node.configPath, ({ registry }) => (registry.policies = []));
    await node.registry.waitForLine(/"msg":"configuration reloaded"/, { from: mark });
    expect(await statusOf(node)).toBe(200);
    expect(await metric(node.adminPort, 'salvor_config_reloads_total{result="ok"')).toBe(2);
  });

  test('Registry follows the symbolic links of a mounted ConfigMap', async () => {
    const node = await createNode();
    const directory = dirname(node.configPath);
    const publish = async (version: string, settings: Settings): Promise<void> => {
      await mkdir(join(directory, version));
      await writeFile(join(directory, version, 'config.json'), JSON.stringify(settings));
      await symlink(version, join(directory, '..data_tmp'));
      await rename(join(directory, '..data_tmp'), join(directory, '..data'));
    };
    const settings = await settingsOf(node.configPath);
    await rm(node.configPath);
    await publish('..v1', settings);
    await symlink(join('..data', 'config.json'), node.configPath);
    await node.startRegistry();
    expect(await statusOf(node)).toBe(200);
    await publish('..v2', { ...settings, registry: { ...settings.registry, policies: bypassAll } });
    await rm(join(directory, '..v1'), { recursive: true });
    await node.registry.waitForLine(/"msg":"configuration reloaded"/);
    expect(await statusOf(node)).toBe(404);
  });

  test('Registry keeps serving with the old configuration when the file is bad', async () => {
    const node = await startRegistry();
    const before = await settingsOf(node.configPath);
    await edit(node.configPath, ({ registry }) => {
      registry.policies = [{ match: '*', mode: 'sometimes' }];
      registry.allow = 'x y';
    });
    const line = await node.registry.waitForLine(/"msg":"Cannot reload the configuration/);
    const { level, mistakes } = JSON.parse(line) as { level: string; mistakes: string[] };
    expect(level).toBe('error');
    expect(mistakes).toEqual([
      expect.stringMatching(/^registry\.allow.* \(file .*config\.json\): found "x y", expected/),
      expect.stringMatching(/^registry\.policies\[0\]\.mode .*found "sometimes", expected one of/),
    ]);
    expect(await statusOf(node)).toBe(200);
    expect(await metric(node.adminPort, 'salvor_config_last_reload_successful')).toBe(0);

    await writeFile(node.configPath, JSON.stringify(before));
    await node.registry.waitForLine(/"msg":"configuration reloaded, nothing to change"/);
    expect(await metric(node.adminPort, 'salvor_config_last_reload_successful')).toBe(1);
    expect(node.registry.lines().filter(({ text }) => text.includes('Cannot reload'))).toHaveLength(
      1,
    );
  });

  test('Registry reads its file at SIGHUP and keeps what did not change', async () => {
    const node = await startRegistry();
    expect(await statusOf(node)).toBe(200);
    await node.registry.kill('SIGHUP');
    await node.registry.waitForLine(/"msg":"configuration reloaded, nothing to change"/);
    await edit(node.configPath, ({ registry }) => (registry.policies = [observe]));
    await node.registry.kill('SIGHUP');
    await node.registry.waitForLine(/"msg":"configuration reloaded"/);
    expect(await statusOf(node)).toBe(200);
    expect(proxy.connectionCount).toBe(1);
  });

  test('Registry lets a stream end whose upstream was taken away, resumed there even', async () => {
    const node = await startRegistry();
    await proxy.setMode({ kind: 'throttle', bytesPerSecond: 2 * mebibyte });
    const url = `${node.url}/v2/team/app/blobs/${big.layer.digest}?ns=${registryName}`;
    const stream = getHash(url);
    await waitFor(() => proxy.openConnections > 0);
    await edit(node.configPath, ({ registry }) => (registry.deny = [registryName]));
    await node.registry.kill('SIGHUP');
    await node.registry.waitForLine(/"msg":"upstreams replaced or given up"/);
    expect(await statusOf(node)).toBe(404);
    await waitFor(() => node.requests().length === 1);
    expect(node.requests()[0]).toMatchObject({ decision: 'not_allowed' });
    proxy.resetConnections();
    await proxy.setMode({ kind: 'pass' });
    expect(await stream).toMatchObject({ status: 200, digest: big.layer.digest });
    await waitFor(() => node.requests().length === 2);
    expect(node.requests()[1]).toMatchObject({ source: 'upstream', end: 'complete' });
    expect(proxy.connectionCount).toBe(2);
    await waitFor(() => proxy.openConnections === 0, { timeoutMs: 10_000 });
  });
});

test('Agent asks members that were added while it ran, in an outage', async () => {
  const [node, holder] = [await createNode(), await createNode()];
  await holder.hold(small.layer.digest, small.layer.bytes);
  for (const each of [node, holder]) await each.startAgent();
  await node.startRegistry();
  const url = `${node.url}/v2/team/app/blobs/${small.layer.digest}?ns=${registryName}`;
  await proxy.setMode({ kind: 'refuse' });
  expect((await get(url)).status).toBe(503);

  const { agent } = await settingsOf(holder.configPath);
  await edit(node.configPath, (settings) => {
    const { members } = settings.agent;
    members.static = [...members.static, ...agent.members.static];
  });
  const line = await node.agent.waitForLine(/"msg":"configuration reloaded"/);
  expect(JSON.parse(line)).toMatchObject({ changed: ['agent.members.static'] });
  const answer = await get(url);
  expect(answer).toMatchObject({ status: 200, body: small.layer.bytes });
  expect(answer.headers['salvor-source']).toBe(`node/${holder.name}`);

  const mark = node.agent.lineCount;
  await edit(node.configPath, ({ agent: { members } }) => {
    members.static = members.static.slice(0, 1);
  });
  await node.agent.kill('SIGHUP');
  await node.agent.waitForLine(/"msg":"configuration reloaded"/, { from: mark });
  expect((await get(url)).status).toBe(503);
});

describe('salvor start', () => {
  async function start(name: string, configArguments: readonly string[]): Promise<Program> {
    const program = await Program.start(scope(), {
      name,
      command: sourceProgram.command,
      arguments: [sourceProgram.main, 'start', ...configArguments],
    });
    await program.waitForLine(/"msg":"ready"/, { timeoutMs: 20_000 });
    return program;
  }

  test('Start takes a changed file over at SIGHUP', async () => {
    const port = await freePort();
    const configPath = join(scope().directory, 'start.json');
    const settings = {
      registry: { upstreams: { [registryName]: { url: proxy.url } } },
      start: {
        listen: `127.0.0.1:${port}`,
        admin: '',
        store: { path: join(scope().directory, 'start-store') },
      },
    };
    await writeFile(configPath, JSON.stringify(settings));
    const program = await start('start-file', ['--config', configPath]);
    expect((await get(manifestUrl(`http://127.0.0.1:${port}`))).status).toBe(200);
    const log = { level: 'warn' };
    const registry = { ...settings.registry, policies: bypassAll };
    await writeFile(configPath, JSON.stringify({ ...settings, registry, log }));
    await program.kill('SIGHUP');
    const line = await program.waitForLine(/"msg":"configuration reloaded"/);
    expect(JSON.parse(line)).toMatchObject({ changed: ['log.level', 'registry.policies'] });
    expect((await get(manifestUrl(`http://127.0.0.1:${port}`))).status).toBe(404);
    await program.stop();
    expect(program.lines().filter(({ text }) => text.includes('"msg":"request"'))).toHaveLength(1);
  });

  test('Start says at SIGHUP that it has no file to read again', async () => {
    const port = await freePort();
    const store = join(scope().directory, 'no-file-store');
    const flags = [
      '--start-listen',
      `127.0.0.1:${port}`,
      '--start-admin',
      '',
      '--start-store-path',
    ];
    const program = await start('start-no-file', [...flags, store]);
    await program.kill('SIGHUP');
    await program.waitForLine(/"msg":"nothing to reload, there is no configuration file"/);
    expect((await get(`http://127.0.0.1:${port}/v2/`)).status).toBe(200);
  });
});
