import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ConfigError } from '../../src/config/config-error.ts';
import { loadConfig, type LoadOptions } from '../../src/config/load.ts';
import { namedSettings } from '../../src/config/setting-name.ts';

let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'salvor-fuzz-'));
});

afterAll(async () => {
  await rm(directory, { recursive: true });
});

/** Keys of the schema, those that JavaScript knows of every object, and anything. */
const keys = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...wordsOf(namedSettings.map(({ key }) => key))) },
  fc.constantFrom('__proto__', 'constructor', 'prototype', 'toString', ''),
  fc.string(),
);

const values = fc.oneof(
  fc.constantFrom('', '0', '-1', '1e400', '5s', '1GiB', '127.0.0.1:1', '/x', 'off', '*', '[::]:0'),
  fc.constantFrom(0, -1, 1.5, 2 ** 53, Number.MAX_VALUE, true, null),
  fc.string({ unit: 'binary' }),
);

const documents = fc.letrec<{ tree: unknown }>((tie) => ({
  tree: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    values,
    fc.array(tie('tree'), { maxLength: 3 }),
    fc.dictionary(keys, tie('tree'), { maxKeys: 4 }),
  ),
})).tree;

type Tree = Record<string, unknown>;

const rightDocument: Tree = {
  node: { name: 'a', stateDirectory: '/s' },
  registry: {
    listen: '127.0.0.1:1',
    allow: ['*'],
    upstreams: {
      'a.test': { url: 'https://a.test', peers: 'prefer', allowAddresses: ['10.0.0.0/8'] },
      'b.test:5000': { plainHttp: true },
    },
    budgets: { hedgeMs: 1, stallMs: '5s' },
    limits: { maxManifestBytes: '8MiB' },
  },
  agent: {
    members: { static: [{ name: 'a', address: '127.0.0.1:1' }] },
    store: { kind: 'directory' },
  },
  tls: { mode: 'off' },
};

/** Every value in a tree: the keys that lead to what it is in, and its own. */
function placesIn(tree: Tree, parents: readonly string[] = []): [readonly string[], string][] {
  return Object.entries(tree).flatMap(([name, value]): [readonly string[], string][] => [
    [parents, name],
    ...(typeof value === 'object' ? placesIn(value as Tree, [...parents, name]) : []),
  ]);
}

function wordsOf(names: readonly string[]): string[] {
  return [...new Set(names.flatMap((name) => name.split('.')))];
}

/** Either a whole configuration, or a ConfigError that says what is wrong, in time. */
async function expectVerdict(options: LoadOptions): Promise<void> {
  try {
    const config = await loadConfig(options);
    expect(Object.keys(config).length).toBeGreaterThan(5);
    expect(Object.isFrozen(config.registry.budgets)).toBe(true);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    expect(error.mistakes.length).toBeGreaterThan(0);
  }
  expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
}

describe('loadConfig', () => {
  test.each(['json', 'yaml'])('loadConfig judges any document of a %s file', async (extension) => {
    const path = join(directory, `document.${extension}`);
    await fc.assert(
      fc.asyncProperty(documents, async (document) => {
        await writeFile(path, JSON.stringify(document));
        await expectVerdict({ file: path });
      }),
      { numRuns: 300 },
    );
  });

  test('loadConfig judges a right document in which one value is any other', async () => {
    const path = join(directory, 'altered.json');
    await fc.assert(
      fc.asyncProperty(fc.nat(), documents, async (at, value) => {
        const places = placesIn(rightDocument);
        const [parents, name] = places[at % places.length]!;
        const altered = structuredClone(rightDocument);
        const parent = parents.reduce((tree, key) => tree[key] as Tree, altered);
        parent[name] = value;
        await writeFile(path, JSON.stringify(altered));
        await expectVerdict({ file: path });
      }),
      { numRuns: 500 },
    );
  });

  test('loadConfig judges any text and any bytes of a YAML file', async () => {
    const path = join(directory, 'bytes.yaml');
    const pieces = fc.constantFrom(
      ...[
        'registry:',
        '  listen: ',
        '\n',
        '\t',
        '- ',
        '&a ',
        '*a',
        '!!js ',
        '<<: ',
        '{',
        '[',
        '"',
        ': ',
      ],
      ...[
        '|',
        '>',
        '%YAML 1.2',
        '---',
        '# ',
        '\u0000',
        '\ufeff',
        'budgets',
        '__proto__: {polluted: 1}',
      ],
    );
    const texts = fc.array(pieces, { maxLength: 30 }).map((parts) => Buffer.from(parts.join('')));
    const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));
    await fc.assert(
      fc.asyncProperty(fc.oneof(texts, bytes), async (content) => {
        await writeFile(path, content);
        await expectVerdict({ file: path });
      }),
      { numRuns: 500 },
    );
  });

  test('loadConfig is not held up by aliases that multiply', async () => {
    const path = join(directory, 'aliases.yaml');
    const lines = Array.from({ length: 30 }, (_, at) => {
      const list = at === 0 ? '[x, x]' : `[${`*a${at - 1}, `.repeat(9)}*a${at - 1}]`;
      return `a${at}: &a${at} ${list}`;
    });
    await writeFile(path, lines.join('\n'));
    const startedAt = performance.now();
    await expectVerdict({ file: path });
    expect(performance.now() - startedAt).toBeLessThan(2000);
  });

  test('loadConfig judges any environment and any flags', async () => {
    const names = fc.oneof(
      fc.constantFrom(...namedSettings.map(({ env }) => env)),
      fc.string().map((name) => `SALVOR_${name}`),
    );
    const flags = fc.oneof(fc.constantFrom(...namedSettings.map(({ key }) => key)), keys);
    const texts = fc.oneof(
      values.filter((value) => typeof value === 'string'),
      fc.string({ unit: 'binary', maxLength: 40 }),
      fc.json(),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(names, texts, { maxKeys: 6 }),
        fc.dictionary(flags, texts, { maxKeys: 3 }),
        async (env, given) => {
          // A path of a file to read is another matter.
          delete env['SALVOR_CONFIG'];
          await expectVerdict({ env, flags: given });
        },
      ),
      { numRuns: 500 },
    );
  });
});
