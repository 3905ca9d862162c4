import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

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
import { HostsRunner, type RunnerOptions } from './hosts-runner.ts';

const none: TreePems = { ca: '', cert: '', key: '' };
const names = certsTrees(none).map(({ name }) => name);
const secret = 'c2VjcmV0';

let pems: TreePems;
let runner: HostsRunner;

beforeAll(async () => {
  pems = await issueServerCertificate(await createAuthority());
});

beforeEach(async () => {
  runner = await HostsRunner.create();
});

afterEach(() => runner.remove());

function treeOf(name: string): CertsTree {
  return certsTrees(pems).find((tree) => tree.name === name)!;
}

/** The options that a tree asks for. */
function optionsOf({ roots = ['certs.d'], version = '2.2.7' }: CertsTree): RunnerOptions {
  const configPath = roots.map((root) => join(runner.tree, root)).join(':');
  return { configPath, containerdVersion: version };
}

const label = (name: string): string => (name === '_default' ? 'all others' : name);

describe('salvor hosts', () => {
  test.each(names)('salvor hosts joins and restores %s', async (name) => {
    const tree = treeOf(name);
    const options = optionsOf(tree);
    await plantTree(runner.tree, tree);
    const before = await describeTree(runner.tree);
    const diff = await runner.run({ ...options, dryRun: true });
    expect(await describeTree(runner.tree)).toEqual(before);
    expect(await readdir(runner.directory)).toEqual(['tree']);
    expect(diff).not.toContain(secret);

    const report = await runner.write(options);
    expect(JSON.stringify(report)).not.toContain(secret);
    const joined = report.files.filter((file) => file.state === 'joined');
    expect(joined.map(({ registry }) => registry).toSorted()).toEqual(
      tree.joined.map(label).toSorted(),
    );
    for (const { path } of joined) {
      const [first = ''] = Object.keys(tableIn(parseToml(await readFile(path, 'utf8')), ['host']));
      expect(first).toMatch(/^http:\/\/(127\.0\.0\.1|localhost):7480$/);
    }
    const after = await describeTree(runner.tree);
    const left = report.files.filter((file) => file.state === 'left alone');
    expect(left).toHaveLength(Object.keys(tree.left ?? {}).length);
    for (const [part, reason] of Object.entries(tree.left ?? {})) {
      const found = left.find(({ path }) => `${path}/`.includes(`/${part.replace(/\/$/, '')}/`));
      expect(found?.reason).toContain(reason);
    }
    for (const { path } of left) {
      const relative = path.slice(runner.tree.length + 1);
      expect(after[relative]).toBe(before[relative]);
    }
    if (tree.settings !== undefined) {
      const text = await readFile(join(runner.state, 'upstreams', 'hosts.json'), 'utf8').catch(
        () => '{"mirrors":[],"upstreams":{}}',
      );
      expect(JSON.parse(text)).toMatchObject(matching(tree.settings) as object);
      expect(text).not.toContain(secret);
    }

    expect(await runner.write(options)).toMatchObject({ isChanged: false });
    expect(await describeTree(runner.tree)).toEqual(after);
    // Another port: the entry is known again, and stands there once.
    await runner.write({ ...options, mirrorUrl: 'http://127.0.0.1:7999' });
    for (const { path } of joined) {
      const text = await readFile(path, 'utf8');
      expect(text.match(/# salvor: begin/g)?.length ?? 0).toBeLessThan(2);
    }
    await runner.restore();
    expect(await describeTree(runner.tree)).toEqual(before);
    expect(await readdir(runner.state).catch(() => [])).toEqual([]);
    expect(await runner.restore()).toBe('');
  });
});

/** Regular expressions become matchers, as they are not compared to texts by themselves. */
function matching(value: unknown): unknown {
  if (value instanceof RegExp) return expect.stringMatching(value);
  if (Array.isArray(value)) return value.map(matching);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, matching(inner)]));
}
