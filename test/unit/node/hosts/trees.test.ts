import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { runHosts, type HostsOptions } from '../../../../src/cli/hosts.ts';
import { loadConfig } from '../../../../src/config/load.ts';
import { createAuthority } from '../../../../src/rpc/certificates.ts';
import { parseToml, tableIn } from '../../../../src/node/toml-table.ts';
import {
  certsTrees,
  describeTree,
  plantTree,
  type CertsTree,
  type TreePems,
} from '../../../support/certs-trees.ts';
import { issueServerCertificate } from '../../../support/server-certificate.ts';

const none: TreePems = { ca: '', cert: '', key: '' };
const names = certsTrees(none).map(({ name }) => name);
const secret = 'c2VjcmV0';

let pems: TreePems;
let directory: string;
let state: string;
let treeDirectory: string;

beforeAll(async () => {
  pems = await issueServerCertificate(await createAuthority());
});

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'salvor-trees-'));
  state = join(directory, 'state');
  treeDirectory = join(directory, 'tree');
  await mkdir(treeDirectory);
});

afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

function treeOf(name: string): CertsTree {
  return certsTrees(pems).find((tree) => tree.name === name)!;
}

interface Report {
  readonly isChanged: boolean;
  readonly files: readonly {
    readonly path: string;
    readonly registry: string;
    readonly state: string;
    readonly reason?: string;
  }[];
}

async function hosts(tree: CertsTree, options: Partial<HostsOptions> = {}): Promise<string> {
  const { roots = ['certs.d'], version = '2.2.7' } = tree;
  let out = '';
  await runHosts(
    await loadConfig({ command: 'hosts', flags: { 'node.stateDirectory': state } }),
    {
      verb: 'write',
      configPath: roots.map((root) => join(treeDirectory, root)).join(':'),
      containerdConfig: join(directory, 'config.toml'),
      containerdVersion: version,
      dryRun: false,
      force: false,
      json: true,
      wait: false,
      share: '100',
      ...options,
    },
    { signal: AbortSignal.timeout(10_000), writeOut: (text) => (out += text) },
  );
  return out;
}

async function write(tree: CertsTree, options: Partial<HostsOptions> = {}): Promise<Report> {
  return JSON.parse(await hosts(tree, options)) as Report;
}

async function restore(tree: CertsTree, options: Partial<HostsOptions> = {}): Promise<string> {
  return hosts(tree, { verb: 'restore', json: false, ...options });
}

const label = (name: string): string => (name === '_default' ? 'all others' : name);

describe('salvor hosts', () => {
  test.each(names)('salvor hosts joins and restores %s', async (name) => {
    const tree = treeOf(name);
    await plantTree(treeDirectory, tree);
    const before = await describeTree(treeDirectory);
    const diff = await hosts(tree, { dryRun: true, json: false });
    expect(await describeTree(treeDirectory)).toEqual(before);
    expect(await readdir(directory)).toEqual(['tree']);
    expect(diff).not.toContain(secret);

    const report = await write(tree);
    expect(JSON.stringify(report)).not.toContain(secret);
    const joined = report.files.filter((file) => file.state === 'joined');
    expect(joined.map(({ registry }) => registry).toSorted()).toEqual(
      tree.joined.map(label).toSorted(),
    );
    for (const { path } of joined) {
      const [first = ''] = Object.keys(tableIn(parseToml(await readFile(path, 'utf8')), ['host']));
      expect(first).toMatch(/^http:\/\/(127\.0\.0\.1|localhost):7480$/);
    }
    const after = await describeTree(treeDirectory);
    const left = report.files.filter((file) => file.state === 'left alone');
    expect(left).toHaveLength(Object.keys(tree.left ?? {}).length);
    for (const [part, reason] of Object.entries(tree.left ?? {})) {
      const found = left.find(({ path }) => `${path}/`.includes(`/${part.replace(/\/$/, '')}/`));
      expect(found?.reason).toContain(reason);
    }
    for (const { path } of left) {
      const relative = path.slice(treeDirectory.length + 1);
      expect(after[relative]).toBe(before[relative]);
    }
    if (tree.settings !== undefined) {
      const text = await readFile(join(state, 'upstreams', 'hosts.json'), 'utf8').catch(
        () => '{"mirrors":[],"upstreams":{}}',
      );
      expect(JSON.parse(text)).toMatchObject(matching(tree.settings) as object);
      expect(text).not.toContain(secret);
    }

    expect(await write(tree)).toMatchObject({ isChanged: false });
    expect(await describeTree(treeDirectory)).toEqual(after);
    // Another port: the entry is known again, and stands there once.
    await write(tree, { mirrorUrl: 'http://127.0.0.1:7999' });
    for (const { path } of joined) {
      const text = await readFile(path, 'utf8');
      expect(text.match(/# salvor: begin/g)?.length ?? 0).toBeLessThan(2);
    }
    await restore(tree);
    expect(await describeTree(treeDirectory)).toEqual(before);
    expect(await readdir(state).catch(() => [])).toEqual([]);
    expect(await restore(tree)).toBe('');
  });
});

/** Regular expressions become matchers, as they are not compared to texts by themselves. */
function matching(value: unknown): unknown {
  if (value instanceof RegExp) return expect.stringMatching(value);
  if (Array.isArray(value)) return value.map(matching);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, matching(inner)]));
}
