import { createServer, type RequestListener, type Server } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { mkdir, readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { containerdRelease } from '../../../../src/node/containerd-config/containerd-release.ts';
import { withoutHeaders } from '../../../../src/node/hosts/hosts-diff.ts';
import { ownEntry } from '../../../../src/node/hosts/own-entry.ts';
import { selfTest } from '../../../../src/node/hosts/self-test.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { freePort } from '../../../support/ports.ts';
import { HostsRunner } from './hosts-runner.ts';

let runner: HostsRunner;
let server: Server | undefined;

beforeEach(async () => {
  runner = await HostsRunner.create();
});

afterEach(async () => {
  server?.closeAllConnections();
  await new Promise((resolve) => (server === undefined ? resolve(0) : server.close(resolve)));
  server = undefined;
  await runner.remove();
});

async function serve(listener: RequestListener): Promise<string> {
  server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function containerdSays(lines: readonly string[]): Promise<void> {
  await writeFile(join(runner.directory, 'config.toml'), lines.join('\n'));
}

describe('ownEntry', () => {
  test.each(['1.6.20', '1.7.34', '2.0.6', '2.0.7', '2.0.11', '2.1.0', '2.2.7', '2.3.4', undefined])(
    'ownEntry says only what containerd %s understands',
    (version) => {
      const entry = ownEntry('http://127.0.0.1:7480', containerdRelease(version));
      expect(entry).toContain('capabilities = ["pull", "resolve"]');
      expect(entry.includes('dial_timeout')).toBe(version !== undefined && version >= '2.1');
      expect(entry).not.toMatch(/referrers|ca =|client|skip_verify|server =/);
    },
  );
});

describe('salvor hosts', () => {
  test('salvor hosts takes the directories of containerd, and warns where it ignores two', async () => {
    const roots = `${runner.tree}/a:${runner.tree}/b`;
    await containerdSays([
      'version = 3',
      '[plugins."io.containerd.cri.v1.images".registry]',
      `config_path = "${roots}"`,
    ]);
    const run = (version: string): Promise<string> =>
      runner.run({ configPath: undefined as never, containerdVersion: version });
    expect(await run('2.0.5')).not.toContain('warning');
    expect(await run('2.2.7')).toContain('takes config_path');
    expect(await readdir(join(runner.tree, 'a'))).toEqual(['_default']);
  });

  test.each([
    [['version = 2'], 'its config_path is not set'],
    [
      [
        'version = 2',
        '[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]',
        'endpoint = ["https://m.test"]',
      ],
      'it has registry.mirrors for docker.io',
    ],
  ])('salvor hosts says what to change in %j', async (lines, reason) => {
    await containerdSays(lines);
    const run = runner.run({ configPath: undefined as never, containerdVersion: '1.7.34' });
    await expect(run).rejects.toThrow(reason);
    await expect(run).rejects.toThrow('restart containerd');
  });

  test('salvor hosts says that it does not know the version', async () => {
    const { warnings } = await runner.write({ containerdVersion: undefined as never });
    expect(warnings.join()).toContain('the version of containerd is not known');
  });

  test('salvor hosts leaves out the nodes that are not in the share', async () => {
    const nodes = Array.from({ length: 40 }, (_, index) => `node-${index}`);
    const joined = async (share: string): Promise<string[]> => {
      const out = await Promise.all(
        nodes.map(async (name) => {
          const text = await runner.run({ share, dryRun: true, flags: { 'node.name': name } });
          return text.includes('is not among') ? [] : [name];
        }),
      );
      return out.flat();
    };
    expect(await joined('0')).toEqual([]);
    expect(await joined('100%')).toEqual(nodes);
    const [few, more] = [await joined('20'), await joined('60')];
    expect(few.length).toBeGreaterThan(0);
    expect(more.length).toBeGreaterThan(few.length);
    expect(few.every((name) => more.includes(name))).toBe(true);
    await expect(joined('many')).rejects.toThrow('give a percentage');
  });

  test.each([
    ['0.0.0.0:7480', 'http://127.0.0.1:7480'],
    ['[::]:7480', 'http://[::1]:7480'],
    ['10.0.0.1:80', 'http://10.0.0.1'],
  ])('salvor hosts sends containerd to %s as %s', async (listen, url) => {
    const output = await runner.write({ dryRun: true, flags: { 'registry.listen': listen } });
    expect(output.mirrorUrl).toBe(url);
  });

  test.each(['http://127.0.0.1:7480/v2', 'ftp://a', 'http://u:p@a', 'nonsense'])(
    'salvor hosts refuses to send containerd to %s',
    async (mirrorUrl) => {
      await expect(runner.run({ mirrorUrl })).rejects.toThrow('give --mirror-url');
    },
  );

  test('salvor hosts gives files with secrets to whom the registry runs as, and to nobody else', async () => {
    await mkdir(join(runner.tree, 'certs.d', 'a.test'), { recursive: true });
    const header = '[host."https://m.test".header]\nX-Key = "k"\n';
    await writeFile(join(runner.tree, 'certs.d', 'a.test', 'hosts.toml'), header);
    await runner.run({ owner: '4711:4712' });
    const directory = join(runner.state, 'upstreams');
    const names = (await readdir(directory)).toSorted();
    expect(names).toEqual([expect.stringMatching(/\.headers$/), 'hosts.json']);
    const [secret = '', settings = ''] = names.map((name) => join(directory, name));
    expect(await stat(secret)).toMatchObject({ uid: 4711, gid: 4712, mode: 0o100600 });
    expect(await stat(settings)).toMatchObject({ uid: 4711, gid: 4712, mode: 0o100644 });
    expect(await readFile(secret, 'utf8')).toBe('X-Key: k\n');
  });
});

describe('withoutHeaders', () => {
  test.each([
    ['[host."a".header]\nX = "s3cret"\n"X-Y" = [\n  "s3cret=s3cret",\n]\n[host."b"]\nca = "c"'],
    ['[header]\nAuthorization = "s3cret"\nserver = "x"'],
    ['host."a".header.X = "s3cret"\nheader.Y = "s3cret"'],
    ['[host."a"]\nheader = { X = "s3cret" }'],
    ["[host.'a'.'header']\nX = '''\ns3cret\n'''"],
  ])('withoutHeaders hides the values in %j', (text) => {
    expect(withoutHeaders(text)).not.toContain('s3cret');
    expect(withoutHeaders('[host."a"]\nca = "c"')).toBe('[host."a"]\nca = "c"');
  });
});

describe('selfTest', () => {
  const signal = AbortSignal.timeout(20_000);

  test('selfTest knows Salvor by its header', async () => {
    const mirrorUrl = await serve((request, response) => {
      if (request.url === '/v2/') response.writeHead(200, { 'salvor-version': '1.2.3' }).end();
      else response.writeHead(503).end('{"errors":[{"code":"UNAVAILABLE","message":"x"}]}');
    });
    expect(await selfTest({ mirrorUrl, waitMs: 0, signal }, { clock: new FakeClock() })).toBe(
      '1.2.3',
    );
  });

  test.each([
    ['fails', 500, '{"errors":[{"code":"UNKNOWN"}]}', 'answers a pull with status 500'],
    ['says nothing of why', 503, '<html>', 'answers a pull with status 503'],
    ['gives what nobody has', 200, '{}', 'answers a pull with status 200'],
    ['breaks off', 0, '', 'does not answer a pull'],
  ])(
    'selfTest finds a registry that %s when it is asked for an image',
    async (_, status, body, reason) => {
      const asked: string[] = [];
      const mirrorUrl = await serve((request, response) => {
        asked.push(request.url ?? '');
        if (request.url === '/v2/') response.writeHead(200, { 'salvor-version': '1' }).end();
        else if (status === 0) response.destroy();
        else response.writeHead(status).end(body);
      });
      const test = selfTest({ mirrorUrl, waitMs: 0, signal }, { clock: new FakeClock() });
      await expect(test).rejects.toThrow(reason);
      expect(asked[1]).toMatch(/^\/v2\/.*\?ns=[a-z.-]+\.invalid$/);
    },
  );

  test('selfTest takes nobody else for Salvor, and follows no redirect', async () => {
    const mirrorUrl = await serve((_, response) => {
      response.writeHead(302, { location: '/', 'salvor-version': '1' }).end();
    });
    const test = selfTest({ mirrorUrl, waitMs: 0, signal }, { clock: new FakeClock() });
    await expect(test).rejects.toThrow('something else answers there (status 302)');
  });

  test('selfTest asks until it answers, or the time is over', async () => {
    const clock = new FakeClock();
    const mirrorUrl = `http://127.0.0.1:${await freePort()}`;
    const test = selfTest({ mirrorUrl, waitMs: 1200, signal }, { clock }).catch(
      (error: unknown) => error,
    );
    for (let round = 0; round < 2; round += 1) {
      await clock.untilSleeping();
      clock.advance(500);
    }
    expect(String(await test)).toMatch(/ECONNREFUSED; nothing was changed/);
  });
});
