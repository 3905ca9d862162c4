import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { describe, expect, test } from 'vitest';

import { importsOf, parseImports, sourceFiles } from './support/source-imports.ts';
import type { SourceImport } from './support/source-imports.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * What each folder of src/ may import: other folders, and packages. Everything may use Node's own
 * modules and itself. A new line here is a decision about the design: say why in its commit.
 */
const allowed: Readonly<
  Record<string, { folders: readonly string[]; packages: readonly string[] }>
> = {
  'main.ts': { folders: ['cli'], packages: [] },
  oci: { folders: [], packages: [] },
  // Connections, requests and answers, whoever makes them.
  http: { folders: ['oci'], packages: [] },
  config: { folders: ['oci'], packages: ['typebox', 'yaml'] },
  telemetry: { folders: ['http', 'oci'], packages: ['pino', 'prom-client'] },
  rpc: {
    folders: ['oci'],
    packages: ['@bufbuild/protobuf', '@grpc/grpc-js', '@peculiar/x509', 'reflect-metadata'],
  },
  // The official client costs 40 MiB at rest: it is loaded for kubeconfig files alone, see
  // src/kubernetes/kubeconfig-access.ts; what a Pod asks of its API server is a few calls.
  kubernetes: { folders: ['http', 'oci', 'telemetry'], packages: ['@kubernetes/client-node'] },
  discovery: {
    folders: ['kubernetes', 'oci', 'rpc', 'telemetry'],
    packages: ['@grpc/grpc-js', 'prom-client'],
  },
  // What is decided ahead, for the registry that serves by it and for the report that foretells it.
  policy: { folders: ['oci', 'rpc'], packages: ['ipaddr.js'] },
  report: { folders: ['oci', 'policy', 'rpc', 'telemetry'], packages: ['prom-client'] },
  identity: { folders: ['kubernetes', 'oci', 'rpc', 'telemetry'], packages: [] },
  agent: {
    // Of policy: which addresses must not be dialled at the word of a server, and what the bootstrap
    // listener, which answers containerd without a registry between, may give out.
    folders: ['discovery', 'http', 'oci', 'policy', 'rpc', 'telemetry'],
    packages: ['@bufbuild/protobuf', '@grpc/grpc-js', 'lru-cache', 'prom-client'],
  },
  registry: {
    folders: ['http', 'oci', 'policy', 'rpc', 'telemetry'],
    packages: ['cockatiel', 'fastify', 'ipaddr.js', 'lru-cache', 'prom-client', 'undici'],
  },
  node: { folders: ['oci', 'rpc', 'telemetry'], packages: ['diff', 'semver', 'smol-toml'] },
  cli: {
    folders: [
      'agent',
      'config',
      'discovery',
      'identity',
      'kubernetes',
      'node',
      'oci',
      'policy',
      'registry',
      'report',
      'rpc',
      'telemetry',
    ],
    packages: ['@grpc/grpc-js', 'commander', 'prom-client', 'yaml'],
  },
};

const manifest = JSON.parse(readFileSync(`${root}/package.json`, 'utf8')) as {
  readonly dependencies: Readonly<Record<string, string>>;
};
const files = sourceFiles(root, 'src');
const imports = files.flatMap((file) => importsOf(root, file));

function folderOf(file: string): string {
  return file.split('/')[1] ?? file;
}

function isAllowed({ from, to, ours }: SourceImport): boolean {
  const rule = allowed[folderOf(from)];
  if (!ours) {
    return to.startsWith('node:') || rule?.packages.includes(to) === true;
  }
  const folder = folderOf(to);
  return (
    to.startsWith('src/') && (folder === folderOf(from) || rule?.folders.includes(folder) === true)
  );
}

/** Files that are loaded as soon as `file` is. */
function loadedWith(file: string): Set<string> {
  const loaded = new Set<string>();
  const pending = [file];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (!loaded.has(next)) {
      loaded.add(next);
      const found = imports.filter(
        ({ from, ours, typeOnly, dynamic }) => from === next && ours && !typeOnly && !dynamic,
      );
      pending.push(...found.map(({ to }) => to));
    }
  }
  return loaded;
}

/** Every way that leads from a file back to itself, once each. */
function cycles(edges: ReadonlyMap<string, readonly string[]>): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const walk = (file: string, path: readonly string[]): void => {
    const seenAt = path.indexOf(file);
    if (seenAt >= 0) {
      found.push([...path.slice(seenAt), file].join(' -> '));
    } else if (!done.has(file)) {
      for (const next of edges.get(file) ?? []) {
        walk(next, [...path, file]);
      }
      done.add(file);
    }
  };
  for (const file of edges.keys()) {
    walk(file, []);
  }
  return found;
}

describe('architecture', () => {
  test('architecture has rules for every folder of src', () => {
    const folders = new Set(files.map(folderOf));
    expect([...folders].filter((folder) => !Object.hasOwn(allowed, folder))).toEqual([]);
  });

  test('architecture allows every import there is', () => {
    const offenders = imports.filter((each) => !isAllowed(each));
    expect(
      offenders.map(({ from, to }) => `${from} must not import ${to}`),
      'see the table in test/architecture.test.ts',
    ).toEqual([]);
  });

  test('architecture has no circles of imports', () => {
    const edges = new Map(
      files.map((file) => [
        file,
        imports.filter(({ from, ours }) => from === file && ours).map(({ to }) => to),
      ]),
    );
    expect(cycles(edges)).toEqual([]);
  });

  test('architecture has every package that is needed at run time as a dependency', () => {
    const needed = imports.filter(({ to, ours, typeOnly }) => {
      return !ours && !typeOnly && !to.startsWith('node:');
    });
    const declared = Object.keys(manifest.dependencies);
    expect(needed.filter(({ to }) => !declared.includes(to)).map(({ to }) => to)).toEqual([]);
  });

  test('architecture keeps schema libraries out of running processes', () => {
    const offenders = imports.filter(({ to, typeOnly }) => to === 'typebox' && !typeOnly);
    expect(offenders.map(({ from }) => `${from} must import only types of typebox`)).toEqual([]);
  });

  test('architecture loads the code of a command only when it is called', () => {
    const loaded = [...loadedWith('src/main.ts')].map(folderOf);
    expect(new Set(loaded)).toEqual(new Set(['main.ts', 'cli', 'config']));
  });

  test('architecture keeps the agent out of the registry process', () => {
    const loaded = [...loadedWith('src/cli/registry.ts')];
    expect(loaded.filter((file) => /^src\/(agent|discovery)\//.test(file))).toEqual([]);
  });

  test('architecture keeps the registry out of the agent process', () => {
    const loaded = [...loadedWith('src/cli/agent.ts')];
    expect(loaded.filter((file) => file.startsWith('src/registry/'))).toEqual([]);
  });
});

describe('architecture test', () => {
  test('parseImports sees every kind of import', () => {
    const text = `
      import a from 'node:fs';
      import type { B } from '../oci/b.ts';
      import { c } from "@scope/c/deep";
      import './d.ts';
      export * from '../e.ts';
      export type { F } from './f.ts';
      const g = await import('yaml');
      type H = import('./h.ts').H;
      // import { z } from './z.ts';
      const text = "import { z } from './z.ts'";
    `;
    const found = parseImports('src/cli/x.ts', text);
    expect(found.map(({ to, typeOnly, dynamic }) => [to, typeOnly, dynamic])).toEqual([
      ['node:fs', false, false],
      ['src/oci/b.ts', true, false],
      ['@scope/c', false, false],
      ['src/cli/d.ts', false, false],
      ['src/e.ts', false, false],
      ['src/cli/f.ts', true, false],
      ['yaml', false, true],
      ['src/cli/h.ts', true, false],
    ]);
  });

  test('isAllowed knows what the halves must not do', () => {
    const check = (from: string, to: string, ours = true): boolean =>
      isAllowed({ from, to, ours, typeOnly: false, dynamic: false });
    expect(check('src/registry/a.ts', 'src/agent/b.ts')).toBe(false);
    expect(check('src/agent/a.ts', 'src/registry/b.ts')).toBe(false);
    expect(check('src/oci/a.ts', 'src/telemetry/b.ts')).toBe(false);
    expect(check('src/agent/a.ts', 'test/support/b.ts')).toBe(false);
    expect(check('src/agent/a.ts', 'fastify', false)).toBe(false);
    expect(check('src/agent/store/a.ts', 'src/agent/b.ts')).toBe(true);
    expect(check('src/oci/a.ts', 'node:crypto', false)).toBe(true);
  });

  test('cycles names the way', () => {
    const edges = new Map([
      ['a', ['b']],
      ['b', ['c']],
      ['c', ['b']],
      ['d', ['a']],
    ]);
    expect(cycles(edges)).toEqual(['b -> c -> b']);
  });
});
