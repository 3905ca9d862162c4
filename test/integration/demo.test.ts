import { mkdir, readdir } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { startDockerRegistry } from '../support/docker-registry.ts';
import { buildImage, buildIndex } from '../support/image.ts';
import { processesNaming } from '../support/leaks.ts';
import { Program } from '../support/process.ts';
import { pushImage } from '../support/push.ts';
import { withScope, type TestScope } from '../support/test-scope.ts';
import { repositoryRoot, toolsDirectory } from '../support/tools.ts';

const main = join(repositoryRoot, 'src', 'main.ts');
const nodeOnly = dirname(process.execPath);
const startMs = 60_000;

/** `salvor demo` as a user runs it, with a directory for temporary files that nobody else has. */
class Demo {
  readonly program: Program;
  readonly #temporaryDirectory: string;

  private constructor(program: Program, temporaryDirectory: string) {
    this.program = program;
    this.#temporaryDirectory = temporaryDirectory;
  }

  static async start(
    scope: TestScope,
    options: { path?: string; flags?: readonly string[]; env?: NodeJS.ProcessEnv } = {},
  ): Promise<Demo> {
    const { path = nodeOnly, flags = [], env = {} } = options;
    const temporaryDirectory = join(scope.socketDirectory, 'demo');
    await mkdir(temporaryDirectory);
    const program = await Program.start(scope, {
      name: 'demo',
      command: process.execPath,
      arguments: [main, 'demo', ...flags],
      env: { ...process.env, PATH: path, TMPDIR: temporaryDirectory, ...env },
      cwd: scope.directory,
    });
    return new Demo(program, temporaryDirectory);
  }

  get lines(): string[] {
    return this.program.lines().map((line) => line.text);
  }

  get text(): string {
    return this.lines.join('\n');
  }

  /** Checks how it ended, and that no file and no process is left. */
  async expectEnd(code: number): Promise<void> {
    expect(await this.program.exited, this.text).toEqual({ code, signal: null });
    expect(await readdir(this.#temporaryDirectory)).toEqual([]);
    expect(await processesNaming(this.#temporaryDirectory)).toEqual([]);
  }
}

/** A summary row: who served what in which situation. */
function row(demo: Demo, pull: string): string[] {
  const line = demo.lines.find((text) => text.includes(`  ${pull}  `)) ?? '';
  return line.split(/ {2,}/);
}

describe('salvor demo', () => {
  test.each([
    {
      nodes: 'real containerd daemons',
      path: `${toolsDirectory}/usr/bin:${toolsDirectory}/usr/sbin:${process.env['PATH']}`,
    },
    { nodes: 'directory stores', path: nodeOnly },
  ])('passes on $nodes and leaves nothing behind', async ({ nodes, path }) => {
    await withScope('demo', async (scope) => {
      // Settings and proxies for other processes must not change what is shown.
      const env = {
        SALVOR_REGISTRY_LISTEN: '127.0.0.1:1',
        SALVOR_NODE_NAME: 'other',
        HTTP_PROXY: 'http://127.0.0.1:1',
        HTTPS_PROXY: 'http://127.0.0.1:1',
      };
      const demo = await Demo.start(scope, { path, env });

      await demo.expectEnd(0);

      expect(demo.lines[0]).toContain(`The nodes are ${nodes}`);
      expect(demo.lines.at(-1)).toContain(`The nodes were ${nodes}`);
      expect(demo.text).toMatch(/the same pull fails, as it must: .*refused/i);
      expect(demo.text).toMatch(/tag {7}v1 +from node\/a {2}\(upstream refused/);
      expect(demo.text).toMatch(/from upstream, then node\/[abc] {2}\(upstream cut\)/);
      expect(row(demo, 'node a by tag').slice(2, 6)).toEqual(['succeeds', '77.6 MB', '-', '-']);
      expect(row(demo, 'node b by tag').slice(2, 6)).toEqual(['succeeds', '-', '77.6 MB', '-']);
      expect(row(demo, 'node d by tag')[5]).toBe('67.1 MB');
      expect(demo.text, 'colours').not.toContain('\u001b');
    });
  });

  test('plays with an image of a real registry', async () => {
    await withScope('demo-image', async (scope) => {
      const registry = await startDockerRegistry(scope);
      // The largest layer is smaller than any buffer on the way.
      const layers = [{ randomBytes: 9000 }, { randomBytes: 100 }];
      const image = await buildImage({ directory: scope.directory, layers });
      await pushImage(
        { baseUrl: registry.url, repository: 'real/app', tag: 'v2' },
        buildIndex([image]),
      );
      const flags = ['--image', `${registry.host}/real/app:v2`];
      const demo = await Demo.start(scope, { flags });

      await demo.expectEnd(0);

      expect(demo.text).toContain(`it passes on to ${registry.url} as long as it lives`);
      // Which of the two depends on who was first: the cut, or the node that was asked meanwhile.
      expect(demo.text).toMatch(/ok {2}one response: .* from a node/);
      expect(row(demo, 'node d by tag')[2]).toBe('succeeds');
    });
  });

  test('fails, in words, when there is nothing to pull', async () => {
    await withScope('demo-fails', async (scope) => {
      const closed = createServer().listen({ host: '127.0.0.1', port: 0 });
      await new Promise((resolve) => closed.once('listening', resolve));
      const { port } = closed.address() as AddressInfo;
      await new Promise((resolve) => closed.close(resolve));
      const demo = await Demo.start(scope, { flags: ['--image', `127.0.0.1:${port}/app:v1`] });

      await demo.expectEnd(1);

      expect(demo.text).toMatch(/FAILED {2}Cannot pull from the registry: /);
      expect(demo.text).toContain('The demo has failed. The nodes were directory stores');
    });
  });

  test.each([
    { when: 'nodes start', line: /node . is ready/ },
    { when: 'a blob is pulled', line: /node b, which never had the image/ },
  ])('ends everything on SIGINT while $when', async ({ line }) => {
    await withScope('demo-interrupted', async (scope) => {
      const path = `${toolsDirectory}/usr/bin:${process.env['PATH']}`;
      const demo = await Demo.start(scope, { path });
      await demo.program.waitForLine(line, { timeoutMs: startMs });

      await demo.program.kill('SIGINT');

      await demo.expectEnd(1);
      expect(demo.text).toContain('FAILED  Interrupted');
    });
  });

  test('leaves nothing behind when it is told twice to end', async () => {
    await withScope('demo-interrupted-twice', async (scope) => {
      const demo = await Demo.start(scope);
      await demo.program.waitForLine(/node . is ready/, { timeoutMs: startMs });

      await demo.program.kill('SIGTERM');
      await demo.program.kill('SIGINT');

      const { code } = await demo.program.exited;
      expect([1, 130, 143]).toContain(code);
      await expect.poll(() => processesNaming(scope.socketDirectory)).toEqual([]);
      expect(await readdir(join(scope.socketDirectory, 'demo'))).toEqual([]);
    });
  });

  test('keeps running on request, says how to cause the outage, and ends on SIGINT', async () => {
    await withScope('demo-keep', async (scope) => {
      const demo = await Demo.start(scope, { flags: ['--keep'] });
      const kill = await demo.program.waitForLine(/kill -KILL \d+/, { timeoutMs: startMs });
      const manifest = await demo.program.waitForLine(/curl -i .* 'http/, { timeoutMs: 20_000 });
      const blob = await demo.program.waitForLine(/curl -sD .* 'http/, { timeoutMs: 20_000 });
      await demo.program.waitForLine(/ why /, { timeoutMs: 20_000 });
      const pid = Number(/-KILL (?<pid>\d+)/.exec(kill)?.groups?.['pid']);
      const source = async (line: string): Promise<string | null> => {
        const url = /'(?<url>http:[^']+)'/.exec(line)?.groups?.['url'] ?? '';
        const answer = await fetch(url, { headers: { connection: 'close' } });
        await answer.arrayBuffer();
        expect(answer.status).toBe(200);
        return answer.headers.get('salvor-source');
      };

      expect(await source(manifest)).toBe('upstream');
      expect(await source(blob)).toBe('upstream');
      process.kill(pid, 'SIGSTOP');
      expect(await source(blob)).toMatch(/^node\/[abcd]$/);
      process.kill(pid, 'SIGKILL');
      expect(await source(manifest)).toMatch(/^(node\/[abcd]|memory)$/);
      expect(await source(blob)).toMatch(/^node\/[abcd]$/);

      await demo.program.kill('SIGINT');
      await demo.expectEnd(0);
    });
  });
});
