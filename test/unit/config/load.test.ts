import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { ConfigError } from '../../../src/config/config-error.ts';
import type { ConfigMistake } from '../../../src/config/config-error.ts';
import type { LoadOptions } from '../../../src/config/load.ts';
import { readHeadersFile } from '../../../src/config/headers-file.ts';
import { loadConfig } from '../../../src/config/load.ts';
import { configSchema } from '../../../src/config/schema.ts';
import { withoutSecrets } from '../../../src/config/secrets.ts';

let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'salvor-config-'));
});

afterAll(async () => {
  await rm(directory, { recursive: true });
});

async function file(name: string, content: string): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, content);
  return path;
}

async function mistakesOf(options: LoadOptions): Promise<readonly ConfigMistake[]> {
  const error: unknown = await loadConfig(options).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ConfigError)) {
    throw new Error('Expected a ConfigError', { cause: error });
  }
  return error.mistakes;
}

describe('loadConfig maps', () => {
  test('loadConfig names each entry of a map that is none of its values', async () => {
    const env = { SALVOR_REGISTRY_UPSTREAMS: '{"a.test":0,"b.test":{"url":7},"c.test":{}}' };
    const keys = (await mistakesOf({ env })).map(({ key }) => key);
    expect(keys).toEqual(['registry.upstreams["a.test"]', 'registry.upstreams["b.test"].url']);
  });
});

describe('loadConfig sources', () => {
  test('loadConfig without any source gives every default', async () => {
    const config = await loadConfig();
    expect(config.node.name).toBe(hostname());
    expect(config.registry.listen).toBe('127.0.0.1:7480');
    expect(config.registry.allow).toEqual(['*']);
    expect(config.registry.limits.maxManifestBytes).toBe(8 * 1024 * 1024);
    expect(config.registry.budgets.upstreamHeadersMs).toBe(25_000);
    expect(config.agent.store.kind).toBe('containerd');
    expect(config.agent.store.directory.path).toBe('/var/lib/salvor/store');
    expect(config.tls.mode).toBe('mutual');
    expect(config.watchdog.timeoutMs).toBe(5000);
  });

  test('loadConfig prefers flags over environment over file', async () => {
    const path = await file(
      'order.yaml',
      'registry: { budgets: { hedgeMs: 1, stallMs: 1, locateMs: 1 } }',
    );
    const { budgets } = (
      await loadConfig({
        file: path,
        env: { SALVOR_REGISTRY_BUDGETS_STALL_MS: '2', SALVOR_REGISTRY_BUDGETS_LOCATE_MS: '2' },
        flags: { 'registry.budgets.locateMs': '3' },
      })
    ).registry;
    expect([budgets.hedgeMs, budgets.stallMs, budgets.locateMs]).toEqual([1, 2, 3]);
  });

  test('loadConfig reads JSON and YAML alike', async () => {
    const settings = {
      agent: {
        limits: { windowBytes: '4MiB' },
        members: { static: [{ name: 'b', address: 'b:1' }] },
      },
    };
    const json = await loadConfig({ file: await file('a.json', JSON.stringify(settings)) });
    const yaml = await loadConfig({
      file: await file(
        'a.yaml',
        'agent:\n  limits:\n    windowBytes: 4MiB\n  members:\n    static:\n      - name: b\n        address: b:1\n',
      ),
    });
    expect(yaml).toEqual(json);
    expect(json.agent.limits.windowBytes).toBe(4 * 1024 * 1024);
    expect(json.agent.members.static).toEqual([{ name: 'b', address: 'b:1' }]);
  });

  test('loadConfig finds the file in SALVOR_CONFIG', async () => {
    const path = await file('env.yaml', 'log: { level: debug }');
    expect((await loadConfig({ env: { SALVOR_CONFIG: path } })).log.level).toBe('debug');
  });

  test('loadConfig takes an empty file and empty sections for no settings', async () => {
    expect(await loadConfig({ file: await file('empty.yaml', '') })).toEqual(await loadConfig());
    const path = await file('sections.yaml', 'registry:\n  limits:\ntls:\n  ca:\n');
    expect(await loadConfig({ file: path })).toEqual(await loadConfig());
  });

  test('loadConfig splits lists at commas and joins repeated flags', async () => {
    const config = await loadConfig({
      env: { SALVOR_REGISTRY_DENY: 'a.example, *.b.example' },
      flags: { 'registry.allow': ['docker.io', 'ghcr.io,quay.io'] },
    });
    expect(config.registry.deny).toEqual(['a.example', '*.b.example']);
    expect(config.registry.allow).toEqual(['docker.io', 'ghcr.io', 'quay.io']);
  });

  test('loadConfig empties a list when its variable is empty', async () => {
    expect((await loadConfig({ env: { SALVOR_REGISTRY_ALLOW: '' } })).registry.allow).toEqual([]);
  });

  test('loadConfig reads maps from the environment as JSON', async () => {
    const upstreams = { 'registry.test:5000': { plainHttp: true, peers: 'prefer' } };
    const config = await loadConfig({
      env: { SALVOR_REGISTRY_UPSTREAMS: JSON.stringify(upstreams) },
    });
    expect(config.registry.upstreams).toEqual({
      'registry.test:5000': {
        url: 'http://registry.test:5000',
        ca: '',
        clientCertificate: '',
        clientKey: '',
        headers: {},
        headersFile: '',
        credentials: 'auto',
        namespace: false,
        endpoints: [],
        plainHttp: true,
        peers: 'prefer',
        allowAddresses: [],
      },
    });
  });

  test('loadConfig fills in where an upstream without url answers', async () => {
    const path = await file('urls.yaml', 'registry: { upstreams: { docker.io: {}, a.test: {} } }');
    const { upstreams } = (await loadConfig({ file: path })).registry;
    expect(upstreams['docker.io']?.url).toBe('https://registry-1.docker.io');
    expect(upstreams['a.test']?.url).toBe('https://a.test');
  });

  test('loadConfig takes endpoints in their order and gives them no url beside', async () => {
    const path = await file(
      'endpoints.yaml',
      'registry: { upstreams: { a.test: { endpoints: [' +
        '{ url: https://b.test/v2/hub, headers: { X-Key: k } }, { url: http://a.test }] } } }',
    );
    const upstream = (await loadConfig({ file: path })).registry.upstreams['a.test'];
    expect(upstream?.url).toBe('');
    expect(upstream?.endpoints).toMatchObject([
      { url: 'https://b.test/v2/hub', headers: { 'X-Key': 'k' }, credentials: 'auto', ca: '' },
      { url: 'http://a.test', headers: {}, headersFile: '' },
    ]);
  });

  test('loadConfig resolves a path given as a flag against the working directory', async () => {
    const config = await loadConfig({ flags: { 'start.store.path': 'images' } });
    expect(config.start.store.path).toBe(join(process.cwd(), 'images'));
  });

  test('loadConfig follows the XDG specification for the store of start', async () => {
    const path = async (env: Record<string, string>): Promise<string> =>
      (await loadConfig({ env })).start.store.path;
    expect(await path({ HOME: '/home/a' })).toBe('/home/a/.local/share/salvor');
    expect(await path({ HOME: '/home/a', XDG_DATA_HOME: '/data' })).toBe('/data/salvor');
    expect(await path({ HOME: '/home/a', XDG_DATA_HOME: 'data' })).toBe(
      '/home/a/.local/share/salvor',
    );
  });

  test('loadConfig gives a configuration that cannot be changed, all the way down', async () => {
    const config = await loadConfig({
      env: { SALVOR_AGENT_MEMBERS_STATIC: '[{"name":"a","address":"a:1"}]' },
    });
    expect(() => {
      (config.registry.limits as { maxStreams: number }).maxStreams = 1;
    }).toThrow(TypeError);
    expect(() => {
      (config.agent.members.static[0] as { name: string }).name = 'b';
    }).toThrow(TypeError);
    expect(() => (config.registry.allow as string[]).push('x')).toThrow(TypeError);
  });
});

describe('loadConfig mistakes', () => {
  test('loadConfig reports every mistake of every source at once', async () => {
    const path = await file('bad.yaml', 'registry: { lisen: "a:1", limits: { maxStreams: 0 } }');
    const mistakes = await mistakesOf({
      file: path,
      env: { SALVOR_LOG_LEVEL: 'loud', SALVOR_REGISTRY_LIMITS_MAX_STREAMS: '7' },
      flags: { 'agent.listen': 'nowhere' },
    });
    expect(mistakes).toEqual([
      {
        key: 'registry.lisen',
        source: `file ${path}`,
        expected: 'a known key; did you mean registry.listen?',
      },
      {
        key: 'registry.limits.maxStreams',
        source: `file ${path}`,
        found: '0',
        expected: 'a whole number from 1 to 65536',
      },
      {
        key: 'log.level',
        source: 'environment SALVOR_LOG_LEVEL',
        found: '"loud"',
        expected: 'one of info, debug, warn, error, silent',
      },
      {
        key: 'agent.listen',
        source: 'flag --agent-listen',
        found: '"nowhere"',
        expected: 'an address with port, such as 127.0.0.1:7480 or [::1]:7480',
      },
    ]);
  });

  test('ConfigError says one mistake a line with key, source, value and expectation', async () => {
    const error: unknown = await loadConfig({
      env: { SALVOR_REGISTRY_BUDGETS_CONNECT_MS: 'soon' },
    }).catch((reason: unknown) => reason);
    expect((error as Error).message).toBe(
      'Cannot use the configuration: 1 mistake\n' +
        '  registry.budgets.connectMs (environment SALVOR_REGISTRY_BUDGETS_CONNECT_MS): ' +
        'found "soon", expected milliseconds from 1 ms to 1 d, ' +
        'such as 400, "400ms", "2s" or "1h30m"',
    );
  });

  test('loadConfig knows which variable was meant', async () => {
    expect(await mistakesOf({ env: { SALVOR_REGISTRY_LISTN: 'a:1' } })).toEqual([
      {
        key: 'SALVOR_REGISTRY_LISTN',
        source: 'environment',
        expected: 'a known variable; did you mean SALVOR_REGISTRY_LISTEN?',
      },
    ]);
  });

  test('loadConfig overlooks what Kubernetes sets for a Service of our name', async () => {
    const env = {
      SALVOR_SERVICE_HOST: '10.0.0.1',
      SALVOR_SERVICE_PORT: '7490',
      SALVOR_SERVICE_PORT_GRPC: '7490',
      SALVOR_PORT: 'tcp://10.0.0.1:7490',
      SALVOR_AGENT_PORT_7490_TCP_ADDR: '10.0.0.1',
    };
    expect(await loadConfig({ env })).toEqual(await loadConfig());
  });

  test.each([
    ['[]', 'the whole file', 'a map'],
    ['registry: 5', 'registry', 'a map'],
    ['registry: { allow: docker.io }', 'registry.allow', 'a list'],
    ['registry: { allow: [""] }', 'registry.allow[0]', 'no empty item'],
    ['registry: { upstreams: [a] }', 'registry.upstreams', 'a map'],
    ['registry: { listen: "" }', 'registry.listen', 'a value'],
    ['node: { name: 5 }', 'node.name', 'text'],
    ['agent: { members: { static: [{ name: a }] } }', 'agent.members.static[0].address', 'a value'],
    [
      'registry: { upstreams: { a.test: { plainHttp: 1 } } }',
      'registry.upstreams["a.test"].plainHttp',
      'true or false',
    ],
    [
      'registry: { upstreams: { a.test: { peer: prefer } } }',
      'registry.upstreams["a.test"].peer',
      'a known key; did you mean registry.upstreams["a.test"].peers?',
    ],
    [
      'registry: { upstreams: { "a b": {} } }',
      'registry.upstreams["a b"]',
      'a registry host as in image names, such as docker.io or localhost:5000',
    ],
    [
      'registry: { upstreams: { a.test: { allowAddresses: [10.0.0.0/33] } } }',
      'registry.upstreams["a.test"].allowAddresses[0]',
      'an address block, such as 10.0.0.0/8',
    ],
  ])('loadConfig refuses %s', async (content, key, expected) => {
    const path = await file('refused.yaml', content);
    const mistakes = await mistakesOf({ file: path });
    expect(mistakes.map((mistake) => [mistake.key, mistake.expected])).toEqual([[key, expected]]);
  });

  test.each([
    ['broken.json', '{ "registry": '],
    ['broken.yaml', 'registry: [\n'],
    ['twice.yaml', 'log: {}\nlog: {}\n'],
    ['large.yaml', `# ${'x'.repeat(1024 * 1024)}`],
  ])('loadConfig refuses the file %s as unreadable', async (name, content) => {
    const path = await file(name, content);
    const [mistake, ...others] = await mistakesOf({ file: path });
    expect(mistake).toMatchObject({ key: '--config', source: `file ${path}` });
    expect(others).toEqual([]);
  });

  test('loadConfig reports a missing file together with other mistakes', async () => {
    const mistakes = await mistakesOf({
      file: '/nonexistent.yaml',
      env: { SALVOR_LOG_LEVEL: 'x' },
    });
    expect(mistakes.map(({ key }) => key)).toEqual(['--config', 'log.level']);
  });

  test('loadConfig refuses broken JSON in a variable', async () => {
    expect(await mistakesOf({ env: { SALVOR_REGISTRY_UPSTREAMS: '{' } })).toEqual([
      {
        key: 'registry.upstreams',
        source: 'environment SALVOR_REGISTRY_UPSTREAMS',
        found: 'text that is not shown',
        expected: 'a JSON object',
      },
    ]);
  });

  test('loadConfig never repeats the password of a URL', async () => {
    const value = '{"a.test":{"url":"https://user:secret@a.test"}}';
    const [mistake] = await mistakesOf({ env: { SALVOR_REGISTRY_UPSTREAMS: value } });
    expect(mistake?.found).toBe('"https://…@a.test"');
  });
});

describe('loadConfig and secrets', () => {
  const secret = 'c2VjcmV0';

  test.each([
    ['a header that may not be set', { headers: { Range: secret } }],
    ['a value with a line break', { headers: { authorization: `Basic ${secret}\r\nX: 1` } }],
    ['a name that is a whole line', { headers: { [`Authorization: Basic ${secret}`]: 'x' } }],
    ['a list instead of a map', { headers: [`Authorization: Basic ${secret}`] }],
    ['a text instead of a map', { headers: `Authorization: Basic ${secret}` }],
    ['a list instead of an upstream', [{ headers: { authorization: secret } }]],
    ['a text instead of endpoints', { endpoints: secret }],
    ['a text instead of an endpoint', { endpoints: [secret] }],
    ['a number instead of a url', { endpoints: [{ url: 5, headers: { authorization: secret } }] }],
  ])('loadConfig shows no secret in what it says about %s', async (_, upstream) => {
    const content = JSON.stringify({ registry: { upstreams: { 'a.test': upstream } } });
    const path = await file('secret.json', content);
    const mistakes = await mistakesOf({ file: path });
    expect(mistakes.length).toBeGreaterThan(0);
    expect(JSON.stringify(mistakes)).not.toContain(secret);
  });

  test.each([
    ['broken.json', `{ "a": { "authorization": "${secret}"`],
    ['broken2.json', `{ "authorization": ${secret} }`],
    ['broken.yaml', `headers:\n  authorization: "${secret}\n  b: "c`],
    ['broken2.yaml', `headers: { authorization: ${secret} ]`],
  ])('loadConfig quotes nothing of the unreadable file %s', async (name, content) => {
    const mistakes = await mistakesOf({ file: await file(name, content) });
    expect(mistakes).toMatchObject([{ key: '--config' }]);
    expect(JSON.stringify(mistakes)).not.toContain(secret);
  });

  test('loadConfig quotes nothing of a broken variable', async () => {
    const env = { SALVOR_REGISTRY_UPSTREAMS: `{"a.test":{"headers":{"a":"${secret}"` };
    expect(JSON.stringify(await mistakesOf({ env }))).not.toContain(secret);
  });

  test('withoutSecrets leaves all but the values of headers', async () => {
    const headers = { 'X-Key': secret };
    const upstreams = {
      'a.test': { url: 'https://a.test/v2/hub', headers },
      'b.test': { endpoints: [{ url: 'https://c.test', headers }] },
    };
    const config = await loadConfig({
      env: { SALVOR_REGISTRY_UPSTREAMS: JSON.stringify(upstreams) },
    });
    expect(config.registry.upstreams['a.test']?.headers).toEqual(headers);
    expect(JSON.parse(JSON.stringify(withoutSecrets(configSchema, config)))).toEqual(
      JSON.parse(JSON.stringify(config).replaceAll(secret, '[redacted]')),
    );
  });

  test('readHeadersFile gives names and values, and shows neither when it cannot', async () => {
    const path = await file('headers', `# robot\n\nAuthorization: Basic ${secret}\r\nX-A:b: c\n`);
    expect(readHeadersFile(path)).toEqual({ authorization: `Basic ${secret}`, 'x-a': 'b: c' });
    for (const line of [secret, `Range: ${secret}`, `a b: ${secret}`, `a: ${secret}\0`, 'a:']) {
      const wrong = await file('wrong-headers', `a: b\n${line}\n`);
      const read = (): unknown => readHeadersFile(wrong);
      expect(read, line).toThrow(`Cannot use line 2 of ${wrong}`);
      expect(read, line).not.toThrow(secret);
    }
  });
});

describe('loadConfig rules', () => {
  const upstream = (settings: object): LoadOptions => ({
    env: { SALVOR_REGISTRY_UPSTREAMS: JSON.stringify({ 'a.test': settings }) },
  });

  test.each([
    [{ clientCertificate: '/c' }, 'clientKey'],
    [{ clientKey: '/k' }, 'clientCertificate'],
    [{ plainHttp: true, url: 'https://a.test' }, 'url'],
    [{ headers: { A: '1', a: '2' } }, 'headers["a"]'],
    [{ endpoints: [{ url: 'https://b.test', clientKey: '/k' }] }, 'endpoints[0].clientCertificate'],
    [{ endpoints: [{ url: 'https://b.test' }], url: 'https://a.test' }, 'url'],
    [{ endpoints: [{ url: 'https://b.test' }], ca: '/ca' }, 'ca'],
    [{ endpoints: [{ url: 'https://b.test' }], headers: { a: '1' } }, 'headers'],
    [{ endpoints: [{ url: 'https://b.test' }], credentials: 'none' }, 'credentials'],
    [{ endpoints: [{ url: 'https://b.test' }], plainHttp: true }, 'plainHttp'],
  ])('loadConfig refuses the upstream %j', async (settings, name) => {
    const mistakes = await mistakesOf(upstream(settings));
    expect(mistakes.map(({ key }) => key)).toEqual([`registry.upstreams["a.test"].${name}`]);
  });

  test('loadConfig refuses a bound of bytes that no large manifest would fit in', async () => {
    const limits = (inFlightBytes: string): LoadOptions => ({
      flags: {
        'registry.limits.maxManifestBytes': '32MiB',
        'registry.limits.inFlightBytes': inFlightBytes,
      },
    });
    const mistakes = await mistakesOf(limits('31MiB'));
    expect(mistakes.map(({ key }) => key)).toEqual(['registry.limits.inFlightBytes']);
    const config = await loadConfig(limits('32MiB'));
    expect(config.registry.limits.inFlightBytes).toBe(32 * 1024 * 1024);
  });

  test('loadConfig wants TLS files of whoever talks to other nodes', async () => {
    const keys = ['tls.ca', 'tls.certificate', 'tls.key'];
    for (const command of ['agent', 'registry']) {
      const mistakes = await mistakesOf({ command });
      expect(
        mistakes.map(({ key }) => key),
        command,
      ).toEqual(keys);
    }
    const alone = { command: 'registry', env: { SALVOR_REGISTRY_AGENT_SOCKET: '' } };
    expect((await loadConfig(alone)).registry.agentSocket).toBe('');
    expect((await loadConfig({ command: 'start' })).tls.ca).toBe('');
  });

  test('loadConfig allows tls.mode off on loopback only', async () => {
    const env = (listen: string, member: string): Record<string, string> => ({
      SALVOR_TLS_MODE: 'off',
      SALVOR_AGENT_LISTEN: listen,
      SALVOR_AGENT_MEMBERS_STATIC: JSON.stringify([{ name: 'b', address: member }]),
    });
    for (const command of ['agent', 'registry']) {
      const wrong = await mistakesOf({ command, env: env('0.0.0.0:7490', '10.0.0.2:7490') });
      expect(
        wrong.map(({ key, expected }) => [key, expected]),
        command,
      ).toEqual([
        ['agent.listen', 'a loopback address, as tls.mode is off'],
        ['agent.members.static[0].address', 'a loopback address, as tls.mode is off'],
      ]);
      const right = await loadConfig({ command, env: env('127.0.0.1:7490', '[::1]:7490') });
      expect(right.tls.mode, command).toBe('off');
    }
    expect(await mistakesOf({ command: 'agent', env: { SALVOR_TLS_MODE: 'off' } })).toHaveLength(1);
  });

  test('loadConfig refuses two members of one name', async () => {
    const members = [
      { name: 'a', address: 'a:1' },
      { name: 'a', address: 'b:1' },
    ];
    const mistakes = await mistakesOf({
      env: { SALVOR_AGENT_MEMBERS_STATIC: JSON.stringify(members) },
    });
    expect(mistakes.map(({ key }) => key)).toEqual(['agent.members.static[1].name']);
  });

  test('loadConfig refuses an admin address that is also the other one, unless any port will do', async () => {
    const flags = (address: string): LoadOptions => ({
      flags: { 'registry.listen': address, 'registry.admin': address },
    });
    expect((await mistakesOf(flags('127.0.0.1:80'))).map(({ key }) => key)).toEqual([
      'registry.admin',
    ]);
    expect((await loadConfig(flags('127.0.0.1:0'))).registry.admin).toBe('127.0.0.1:0');
  });

  test('loadConfig does not ask a rule about a setting that is wrong in itself', async () => {
    const mistakes = await mistakesOf({
      command: 'agent',
      env: { SALVOR_TLS_MODE: 'of', SALVOR_AGENT_LISTEN: '0.0.0.0:1' },
    });
    expect(mistakes.map(({ key }) => key)).toEqual(['tls.mode']);
  });
});
