import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { startDockerRegistry } from '../support/docker-registry.ts';
import { buildImage, buildIndex } from '../support/image.ts';
import { Program } from '../support/process.ts';
import { pushImage } from '../support/push.ts';
import { withScope, type TestScope } from '../support/test-scope.ts';
import { repositoryRoot, toolsDirectory } from '../support/tools.ts';

const main = join(repositoryRoot, 'src', 'main.ts');
const node = dirname(process.execPath);

async function demo(
  scope: TestScope,
  options: { path: string; flags?: readonly string[] },
): Promise<Program> {
  return Program.start(scope, {
    name: 'demo',
    command: process.execPath,
    arguments: [main, 'demo', ...(options.flags ?? [])],
    env: { ...process.env, PATH: options.path },
  });
}

function text(program: Program): string {
  return program
    .lines()
    .map((line) => line.text)
    .join('\n');
}

async function leftovers(): Promise<string[]> {
  return (await readdir(tmpdir())).filter((name) => name.startsWith('salvor-demo-'));
}

describe('salvor demo', () => {
  test.each([
    { nodes: 'real containerd daemons', path: `${toolsDirectory}/usr/bin:${node}:/usr/bin:/bin` },
    { nodes: 'directory stores', path: node },
  ])('passes on $nodes and leaves nothing behind', async ({ nodes, path }) => {
    await withScope('demo', async (scope) => {
      const before = await leftovers();
      const program = await demo(scope, { path });
      expect(await program.exited, text(program)).toMatchObject({ code: 0 });
      const lines = program.lines().map((line) => line.text);
      expect(lines[0]).toContain(`The nodes are ${nodes}`);
      expect(lines.at(-1)).toContain(`The nodes were ${nodes}`);
      expect(text(program)).toMatch(/the same pull fails, as it must: .*refused/i);
      expect(text(program)).toMatch(/from upstream, then node\/[abc]/);
      expect(await leftovers()).toEqual(before);
    });
  });

  test('plays with an image of a real registry', async () => {
    await withScope('demo-image', async (scope) => {
      const registry = await startDockerRegistry(scope);
      const layers = [{ randomBytes: 20_000_000 }];
      const image = await buildImage({ directory: scope.directory, layers });
      await pushImage(
        { baseUrl: registry.url, repository: 'real/app', tag: 'v2' },
        buildIndex([image]),
      );
      const flags = ['--image', `${registry.host}/real/app:v2`];
      const program = await demo(scope, { path: node, flags });
      expect(await program.exited, text(program)).toMatchObject({ code: 0 });
      expect(text(program)).toMatch(/from upstream, then node\/[abc]/);
    });
  });

  test('keeps running on request, says how to cause the outage, and ends on SIGINT', async () => {
    await withScope('demo-keep', async (scope) => {
      const before = await leftovers();
      const program = await demo(scope, { path: node, flags: ['--keep'] });
      await program.waitForLine(/kill -STOP \d+/, { timeoutMs: 40_000 });
      const line = await program.waitForLine(/curl -i .* 'http/, { timeoutMs: 5000 });
      const url = /'(?<url>http:[^']+)'/.exec(line)?.groups?.['url'] ?? '';
      const answer = await fetch(url);
      expect(answer.status).toBe(200);
      await program.kill('SIGINT');
      expect(await program.exited).toMatchObject({ code: 0 });
      expect(await leftovers()).toEqual(before);
    });
  });
});
