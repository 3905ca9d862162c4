import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';

const source = new URL('../../../src/cli/', import.meta.url).href;
const run = promisify(execFile);

/** What a process has in memory once it has loaded these files. */
async function loadedBy(...files: readonly string[]): Promise<{
  /** Of node_modules. */
  readonly packages: readonly string[];
  /** Node's own modules, those within it included. */
  readonly builtins: readonly string[];
}> {
  const script = `
    import { registerHooks } from 'node:module';
    const urls = [];
    registerHooks({ load: (url, context, next) => (urls.push(url), next(url, context)) });
    for (const file of ${JSON.stringify(files)}) await import('${source}' + file);
    const name = /node_modules\\/((?:@[^/]+\\/)?[^/]+)/;
    const packages = [...new Set(urls.map((url) => name.exec(url)?.[1]).filter(Boolean))];
    console.log(JSON.stringify({ packages, builtins: process.moduleLoadList }));
  `;
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', script]);
  return JSON.parse(stdout) as Awaited<ReturnType<typeof loadedBy>>;
}

/** For commands that end, for the demo, or for what is configured seldom. */
const seldomUsed = [
  '@kubernetes/client-node',
  '@peculiar/x509',
  'diff',
  'reflect-metadata',
  'smol-toml',
  'typebox',
  'yaml',
];

describe.each([
  { role: 'registry', others: ['@peculiar/asn1-schema'] },
  { role: 'agent', others: ['fastify', 'undici', 'cockatiel', 'find-my-way'] },
])('the process of the $role', ({ role, others }) => {
  test('holds no package in memory that it does not use', async () => {
    const { packages } = await loadedBy('program.ts', `${role}.ts`);
    expect(packages).toContain('@grpc/grpc-js');
    expect([...seldomUsed, ...others].filter((name) => packages.includes(name))).toEqual([]);
  });

  test("holds nothing of Node's own fetch, more than 2 MiB", async () => {
    const { builtins } = await loadedBy('program.ts', `${role}.ts`);
    expect(builtins.some((name) => name.endsWith(' http2'))).toBe(true);
    expect(builtins.filter((name) => name.includes('undici'))).toEqual([]);
  });
});

test('to import node:http is to load it, which is why nothing does', async () => {
  const script = "import 'node:http'; console.log(process.moduleLoadList.join())";
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', script]);
  expect(stdout).toContain('undici');
});
