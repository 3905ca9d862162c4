import { execFile } from 'node:child_process';
import { createServer } from 'node:http';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';

import { runDoctor, type DoctorOptions } from '../../src/cli/doctor.ts';
import { loadConfig } from '../../src/config/load.ts';
import type { Diagnosis } from '../../src/node/doctor/diagnosis.ts';
import { createAuthority, issueIdentity } from '../../src/rpc/certificates.ts';
import { startCluster, type Cluster, type ClusterNode } from '../support/cluster.ts';
import { startContainerd } from '../support/containerd-node.ts';
import { containerdVersion } from '../support/containerd-version.ts';
import { hostRoot, runInDebugContainer } from '../support/debug-container.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage } from '../support/image.ts';
import { freePort } from '../support/ports.ts';
import { pushImage } from '../support/push.ts';
import { mountSmallDisk } from '../support/small-disk.ts';
import { suiteScope } from '../support/test-scope.ts';
import { repositoryRoot } from '../support/tools.ts';
import { renderToml, type TomlTable } from '../support/toml.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('doctor');
const mib = 1024 ** 2;

let upstream: DockerRegistry;
let cluster: Cluster;
let node: ClusterNode;
let disk: string;

type Settings = Record<string, Record<string, unknown>>;

interface Planted {
  /** Changes what is looked at; undone afterwards, whatever it is. */
  readonly settings?: (settings: Settings) => Promise<Settings> | Settings;
  readonly options?: Partial<DoctorOptions>;
}

/** What the doctor says, infos left out: the release of the tests grows old by itself. */
async function examine(
  planted: Planted = {},
): Promise<{ ids: string[]; code: number; text: string }> {
  let settings = JSON.parse(await readFile(node.configPath, 'utf8')) as Settings;
  settings = (await planted.settings?.(settings)) ?? settings;
  const file = join(scope().directory, 'doctor.json');
  await writeFile(file, JSON.stringify(settings));
  const config = await loadConfig({ command: 'doctor', env: {}, file });
  let text = '';
  const options: DoctorOptions = {
    ...{ json: true, cluster: false, only: [], hostRoot: '/' },
    canary: `${upstream.host}/salvor-canary`,
    ...planted.options,
  };
  const code = await runDoctor(config, options, {
    signal: new AbortController().signal,
    writeOut: (part) => (text += part),
  });
  const { findings, unchecked } = JSON.parse(text) as Diagnosis;
  expect(unchecked, text).toEqual([]);
  const ids = findings.filter(({ severity }) => severity !== 'info').map(({ id }) => id);
  return { ids, code, text };
}

/** Puts something in the place of a file for as long as it takes. */
async function withFile(path: string, text: string | undefined, body: () => Promise<void>) {
  const before = await readFile(path, 'utf8').catch(() => undefined);
  const directory = dirname(path);
  const made = await mkdir(directory, { recursive: true });
  if (text === undefined) await rm(path, { force: true });
  else await writeFile(path, text);
  try {
    await body();
  } finally {
    if (before === undefined) await rm(path, { force: true });
    else await writeFile(path, before);
    if (made !== undefined) await rm(made, { recursive: true });
  }
}

/** A config.toml in the place of the daemon's own, which the daemon never sees. */
async function configFile(registry: TomlTable, version: 2 | 4 = 4, images: TomlTable = {}) {
  const path = join(scope().directory, 'config.toml');
  const name = version === 2 ? 'io.containerd.grpc.v1.cri' : 'io.containerd.cri.v1.images';
  await writeFile(path, renderToml({ version, plugins: { [name]: { registry, ...images } } }));
  return path;
}

function hostsPath(directory = '_default'): string {
  return join(node.containerd.certsDirectory, directory, 'hosts.toml');
}

function entry(extra = '', url = node.url): string {
  return `[host."${url}"]\ncapabilities = ["pull", "resolve"]\n${extra}`;
}

beforeAll(async () => {
  disk = await mountSmallDisk(scope(), { name: 'disk', sizeBytes: 256 * mib });
  upstream = await startDockerRegistry(scope());
  cluster = await startCluster(scope(), {
    nodes: ['a', 'b'],
    upstreams: { [upstream.host]: { url: upstream.url } },
    containerdVersion: containerdVersion('2.3'),
    rootParent: disk,
  });
  node = cluster.node('a');
}, 60_000);

describe('salvor doctor on a real node', () => {
  test('finds nothing in a healthy setup, and leaves no image', async () => {
    const { ids, code, text } = await examine({ options: { cluster: true } });
    expect([ids, code], text).toEqual([[], 0]);
    const byDefault = await examine({ options: { only: ['canary'], canary: '' } });
    expect(byDefault.ids, byDefault.text).toEqual([]);
    expect(await node.containerd.listImages()).toEqual([]);
  });

  test('is a command with an exit code', async () => {
    const run = async (...more: string[]): Promise<{ code: number; stdout: string }> => {
      const main = join(repositoryRoot, 'src/main.ts');
      const called = promisify(execFile)(process.execPath, [
        ...[main, 'doctor', '--config', node.configPath, ...more],
      ]);
      return called.then(
        ({ stdout }) => ({ code: 0, stdout }),
        (error: unknown) => error as { code: number; stdout: string },
      );
    };
    expect(await run('--only', 'registry', '--only', 'canary')).toEqual({
      code: 0,
      stdout: 'nothing found\n',
    });
    const alone = await run('--only', 'registry', '--mirror-url', 'http://127.0.0.1:9');
    expect(alone).toMatchObject({
      code: 2,
      stdout: expect.stringContaining('[registry-unreachable]') as string,
    });
    expect(await run('--only', 'nonsense')).toMatchObject({ code: 1, stdout: '' });
  });

  test('finds as much from a container that has the node’s / below a directory', async () => {
    const doctor = async (...more: string[]): Promise<{ code: number } & Diagnosis> => {
      const { code, error, out } = await runInDebugContainer(scope(), [
        ...['doctor', '--json', '--config', join(hostRoot, node.configPath)],
        ...['--canary', `${upstream.host}/canary`, ...more],
      ]);
      expect(error).toBe('');
      const { findings, unchecked } = JSON.parse(out) as Diagnosis;
      return { code, findings, unchecked };
    };
    const grave = ({ findings }: Diagnosis): string[] =>
      findings.filter(({ severity }) => severity !== 'info').map(({ id }) => id);
    const whole = await doctor('--host-root', hostRoot);
    expect([grave(whole), whole.unchecked, whole.code]).toEqual([[], [], 0]);
    // What it says is about the node, in names that count there.
    await withFile(hostsPath(), entry('skip_verify = true'), async () => {
      const { findings } = await doctor('--host-root', hostRoot, '--only', 'hosts');
      expect(findings.map(({ id }) => id)).toEqual(['hosts-tls-on-http']);
      expect(JSON.stringify(findings)).toContain(`"${hostsPath()}`);
    });
    // Without it nothing is taken for good, or for missing, that was not seen.
    const blind = await doctor('--only', 'config', '--only', 'hosts', '--only', 'containerd');
    expect(grave(blind)).toEqual(['containerd-unreachable']);
    expect(blind.unchecked.map(({ check }) => check)).toEqual(['config', 'hosts']);
  });

  test('finds what is wrong with the configuration of containerd', async () => {
    const roots = node.containerd.certsDirectory;
    const look = async (path: string, version = '2.3.4'): Promise<string[]> =>
      (
        await examine({
          options: { only: ['config'], containerdConfig: path, containerdVersion: version },
        })
      ).ids;
    expect(await look(await configFile({ config_path: roots }))).toEqual([]);
    expect(await look(await configFile({}, 2), '1.7.20')).toEqual(['config-path-unset']);
    expect(await look(await configFile({ config_path: `${roots}:/etc/docker/certs.d` }))).toEqual([
      'two-roots',
    ]);
    const mirrors = { 'docker.io': { endpoint: ['https://m.test'] } };
    expect(await look(await configFile({ mirrors }))).toEqual(['legacy-mirrors']);
    expect(await look(await configFile({ mirrors, config_path: roots }))).toEqual([
      'containerd-config-broken',
      'legacy-mirrors',
    ]);
    const old = { version: 3, plugins: { 'io.containerd.grpc.v1.cri': { registry: {} } } };
    const path = join(scope().directory, 'old.toml');
    await writeFile(path, renderToml(old));
    expect(await look(path, '2.1.9')).toEqual(['config-path-unset', 'ignored-table']);
    const discard = await configFile({ config_path: roots }, 4, { discard_unpacked_layers: true });
    const { ids } = await examine({
      settings: (all) => ({ ...all, agent: { ...all['agent'], keeper: { mode: 'off' } } }),
      options: { only: ['config'], containerdConfig: discard },
    });
    expect(ids).toEqual(['layers-discarded']);
  });

  const brokenFiles: readonly (readonly [id: string, what: string, text: () => string])[] = [
    ['hosts-broken', 'is not TOML', () => '[host'],
    ['hosts-broken', 'has a value of a wrong kind', () => entry('skip_verify = "yes"')],
    [
      'hosts-unknown-capability',
      'has an unknown capability',
      () => `[host."${node.url}"]\ncapabilities = ["pull", "resolve", "proxy"]`,
    ],
    ['hosts-no-resolve', 'knows no tags', () => `[host."${node.url}"]\ncapabilities = ["pull"]`],
    [
      'hosts-default-server',
      'has one server for all',
      () => `server = "https://s.test"\n${entry()}`,
    ],
    ['hosts-tls-on-http', 'has TLS for http', () => entry('skip_verify = true')],
    ['hosts-without-salvor', 'names somebody else', () => entry('', 'https://m.test')],
    ['hosts-wrong-port', 'names another port', () => entry('', 'http://127.0.0.1:9')],
    [
      'hosts-not-first',
      'has another mirror first',
      () => `${entry('', 'https://m.test')}\n${entry()}`,
    ],
  ];
  test.each(brokenFiles)('finds %s where _default %s', async (id, _, text) => {
    await withFile(hostsPath(), text(), async () => {
      expect((await examine({ options: { only: ['hosts'] } })).ids).toEqual([id]);
    });
  });

  test('finds directories that hide _default, and that there is none', async () => {
    const hiding = hostsPath(upstream.host);
    await withFile(hiding, undefined, async () => {
      const { ids, code, text } = await examine();
      expect(ids, text).toEqual(['hosts-shadowed', 'mirror-not-asked']);
      expect(code).toBe(2);
    });
    await withFile(hostsPath(), undefined, async () => {
      expect((await examine({ options: { only: ['hosts'] } })).ids).toEqual([
        'hosts-default-missing',
      ]);
    });
  });

  test('finds that referrers are too much for a release before 2.2', async () => {
    const text = `[host."${node.url}"]\ncapabilities = ["pull", "resolve", "referrers"]`;
    await withFile(hostsPath(), text, async () => {
      const look = async (version: string): Promise<string[]> =>
        (await examine({ options: { only: ['hosts'], containerdVersion: version } })).ids;
      expect(await look('2.1.9')).toEqual(['hosts-unknown-capability']);
      expect(await look('2.2.0')).toEqual([]);
    });
  });

  test('finds a pull that bypassed the registry, and the agent counts it', async () => {
    const push = async (tag: string) =>
      pushImage(
        { baseUrl: upstream.url, repository: 'team/app', tag },
        await buildImage({
          directory: scope().directory,
          layers: [{ randomBytes: 1000, seed: tag }],
        }),
      );
    await push('seen');
    await push('bypassed');
    await node.containerd.pull(`${upstream.host}/team/app:seen`);
    // As a node whose directory hides _default: http, since the registry of the test has no TLS.
    await withFile(hostsPath(upstream.host), `server = "${upstream.url}"\n`, async () => {
      await node.containerd.pull(`${upstream.host}/team/app:bypassed`);
    });
    await node.containerd.ctr(['images', 'tag', `${upstream.host}/team/app:seen`, 'a.test/b:1']);
    const counted = await waitFor(
      async () => {
        const response = await fetch(`http://127.0.0.1:${node.agentAdminPort}/metrics`);
        const text = await response.text();
        return /^salvor_agent_pulls_bypassed_total 1$/m.test(text) && text;
      },
      { timeoutMs: 20_000, what: 'the bypassed pull in the metrics' },
    );
    expect(counted).toMatch(/^salvor_agent_pulls_seen_total 1$/m);
    const { ids, code, text } = await examine({ options: { only: ['pulls'] } });
    expect(ids).toEqual(['pulls-bypassed']);
    expect(text).toContain('1 of 2 pulls');
    expect(code).toBe(1);
  });

  test('cannot tell a pull from a bypass where only the admin port does not answer', async () => {
    const port = await freePort();
    const settings = JSON.parse(await readFile(node.configPath, 'utf8')) as Settings;
    settings['registry'] = { ...settings['registry'], admin: `127.0.0.1:${port}` };
    const file = join(scope().directory, 'no-admin.json');
    await writeFile(file, JSON.stringify(settings));
    let text = '';
    const options = { json: true, cluster: false, only: ['registry', 'canary'], hostRoot: '/' };
    const code = await runDoctor(await loadConfig({ command: 'doctor', env: {}, file }), options, {
      signal: new AbortController().signal,
      writeOut: (part) => (text += part),
    });
    const { findings, unchecked } = JSON.parse(text) as Diagnosis;
    expect(findings.map(({ id }) => id)).toEqual(['registry-admin-unreachable']);
    expect(unchecked.map(({ check }) => check)).toEqual(['canary']);
    expect(code).toBe(3);
  });

  test('finds nothing wrong with a node that is left out on purpose, nor does its agent', async () => {
    const settings = (all: Settings) => ({ ...all, node: { ...all['node'], wiredPercent: 0 } });
    await withFile(hostsPath(), undefined, async () => {
      const { ids, code, text } = await examine({
        settings,
        options: { only: ['hosts', 'canary', 'pulls', 'share'] },
      });
      expect([ids, code], text).toEqual([[], 0]);
      expect(text).toContain('node-left-out');
    });
    const other = cluster.node('b');
    const config = JSON.parse(await readFile(other.configPath, 'utf8')) as Settings;
    const expected = async (): Promise<string | undefined> => {
      const response = await fetch(`http://127.0.0.1:${other.agentAdminPort}/metrics`);
      return /^salvor_agent_wiring_expected (\d)$/m.exec(await response.text())?.[1];
    };
    expect(await expected()).toBe('1');
    await writeFile(other.configPath, JSON.stringify(settings(config)));
    await other.agent.stop();
    await other.startAgent();
    expect(await expected()).toBe('0');
    const status = await fetch(`http://127.0.0.1:${other.agentAdminPort}/status`);
    expect(await status.json()).not.toHaveProperty('pulls');
    await writeFile(other.configPath, JSON.stringify(config));
    await other.agent.stop();
    await other.startAgent();
  });

  test('finds a full disk', async () => {
    const filler = join(disk, 'filler');
    await writeFile(filler, Buffer.alloc(170 * mib));
    const { ids, text } = await examine({ options: { only: ['disk'] } });
    await rm(filler);
    expect(ids[0], text).toMatch(/^disk-/);
  });

  test('finds an identity that has ended, or is by somebody else', async () => {
    const directory = join(scope().directory, 'identity');
    await mkdir(directory);
    const look = async (validMs: number, ca?: string | Buffer): Promise<string[]> => {
      const authority = await createAuthority();
      const nowMs = Date.now();
      const identity = await issueIdentity(authority, ['agent', 'registry'], { validMs, nowMs });
      const tls = {
        ca: join(directory, 'ca.crt'),
        certificate: join(directory, 'tls.crt'),
        key: join(directory, 'tls.key'),
      };
      await writeFile(tls.ca, ca ?? identity.ca);
      await writeFile(tls.certificate, identity.certificate);
      await writeFile(tls.key, identity.key);
      const settings = (all: Settings) => ({ ...all, tls });
      return (await examine({ settings, options: { only: ['identity'] } })).ids;
    };
    const day = 86_400_000;
    expect(await look(365 * day)).toEqual([]);
    expect(await look(-day)).toEqual(['identity-unusable']);
    const stranger = await issueIdentity(await createAuthority(), ['agent']);
    expect(await look(365 * day, stranger.ca)).toEqual(['identity-unusable']);
  });

  test('finds registries that cannot be asked, and policies that leave nodes out', async () => {
    const port = await freePort();
    const { ids } = await examine({
      settings: (all) => ({
        ...all,
        registry: {
          ...all['registry'],
          upstreams: {
            [upstream.host]: { url: upstream.url },
            'gone.test': { url: `http://127.0.0.1:${port}` },
          },
          policies: [{ match: '*', mode: 'observe' }],
        },
      }),
      options: { only: ['upstreams', 'policies'] },
    });
    expect(ids).toEqual(['upstream-unreachable', 'policies-off']);
  });

  test('finds that another program answers in the place of the registry', async () => {
    const other = createServer((_, response) => response.end());
    scope().defer(() => void other.close());
    const port = await freePort();
    await new Promise<void>((resolve) => void other.listen(port, '127.0.0.1', resolve));
    const { ids } = await examine({
      options: { only: ['registry'], mirrorUrl: `http://127.0.0.1:${port}` },
    });
    expect(ids).toEqual(['registry-foreign']);
  });

  test('finds a missing image of its own', async () => {
    const { ids, text } = await examine({
      settings: (all) => ({ ...all, node: { ...all['node'], image: 'salvor/salvor:1' } }),
      options: { only: ['image'] },
    });
    expect(ids).toEqual(['own-image-missing']);
    expect(text).toContain('crictl pull docker.io/salvor/salvor:1');
  });

  test.each(['2.2', '2.3'])(
    'finds two roots that containerd %s takes for one, and the way out of it helps',
    async (release) => {
      const name = `roots-${release}`;
      const containerd = await startContainerd(scope(), {
        name,
        version: containerdVersion(release),
        mirrors: [{ url: upstream.url }],
      });
      const { certsDirectory: roots } = containerd;
      const both = `${roots}:/etc/docker/certs.d`;
      const path = join(scope().directory, name, 'config.toml');
      const written = await readFile(path, 'utf8');
      await writeFile(path, written.replaceAll(roots, both));
      await containerd.restart();
      // The mirror is the only place that could have it.
      const image = 'registry.invalid/team/app:seen';
      await expect(containerd.pull(image)).rejects.toThrow();
      const look = (): ReturnType<typeof examine> =>
        examine({
          settings: (all) => ({
            ...all,
            agent: {
              ...all['agent'],
              store: { kind: 'containerd', containerd: { socket: containerd.socketPath } },
            },
          }),
          options: { only: ['config'] },
        });
      const { ids, text } = await look();
      expect(ids).toEqual(['two-roots']);
      const [, fix = ''] = /without a restart[^:]*: (.*)"/.exec(text) ?? [];
      await promisify(execFile)('sh', ['-ec', fix]);
      expect((await look()).ids).toEqual([]);
      await containerd.pull(image);
    },
  );

  test('finds other nodes that are away, and its own processes', async () => {
    await cluster.node('b').agent.kill('SIGKILL');
    expect((await examine({ options: { only: ['reach'] } })).ids).toEqual(['member-unreachable']);
    await node.registry.kill('SIGKILL');
    const { ids } = await examine({ options: { only: ['registry', 'canary'] } });
    expect(ids).toEqual(['registry-unreachable', 'mirror-not-asked']);
    await node.agent.kill('SIGKILL');
    expect((await examine({ options: { only: ['agent'] } })).ids).toEqual(['agent-unreachable']);
    await node.containerd.kill('SIGKILL');
    expect((await examine({ options: { only: ['containerd'] } })).ids).toEqual([
      'containerd-unreachable',
    ]);
  });
});
