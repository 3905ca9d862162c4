import { appendFile, mkdir, readFile, rm, stat, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { describeTree } from '../../../support/certs-trees.ts';
import { HostsRunner, type HostsOutput } from './hosts-runner.ts';

const original = 'server = "https://a.test"\n[host."https://m.test"]\n';

let runner: HostsRunner;
let path: string;
let before: Record<string, string>;

beforeEach(async () => {
  runner = await HostsRunner.create();
  path = join(runner.tree, 'certs.d', 'a.test', 'hosts.toml');
  await mkdir(join(runner.tree, 'certs.d', 'a.test'), { recursive: true });
  await writeFile(path, original);
  before = await describeTree(runner.tree);
  await runner.write();
});

afterEach(() => runner.remove());

const text = (): Promise<string> => readFile(path, 'utf8');

function fileOf(output: HostsOutput): HostsOutput['files'][number] {
  return output.files.find((file) => file.path === path)!;
}

describe('salvor hosts and what others change', () => {
  test('keeps changes beside its entry, when it writes again and when it restores', async () => {
    await appendFile(path, '[host."https://new.test"]\n');
    const again = await runner.write({ mirrorUrl: 'http://127.0.0.1:7999' });
    expect(fileOf(again)).toMatchObject({
      state: 'joined',
      notes: ['it was changed since; the changes are kept'],
    });
    expect(await text()).toContain('[host."http://127.0.0.1:7999"]');
    await appendFile(path, '# and more\n');
    expect(await runner.restore()).toContain(`changed: ${path}`);
    expect(await text()).toBe(`${original}[host."https://new.test"]\n# and more\n`);
  });

  test('joins anew what was replaced as a whole, and gives that back', async () => {
    const replaced = '# by somebody\n[host."https://other.test"]\n';
    await writeFile(path, replaced);
    const again = await runner.write();
    expect(fileOf(again).notes).toEqual(['it was replaced since, and is joined anew']);
    expect(await text()).toContain('salvor: begin');
    await runner.restore();
    expect(await text()).toBe(replaced);
  });

  test('leaves what was replaced after it alone when it restores, unless forced', async () => {
    await writeFile(path, 'server = "https://b.test"\n');
    expect(await runner.restore()).toContain(`foreign: ${path}`);
    expect(await text()).toBe('server = "https://b.test"\n');

    await writeFile(path, original);
    await runner.write();
    await writeFile(path, 'server = "https://b.test"\n');
    expect(await runner.restore({ force: true })).toContain(`restored: ${path}`);
    expect(await text()).toBe(original);
  });

  test('leaves a change to its own entry, and says so, unless forced', async () => {
    const changed = (await text()).replace('"2s"', '"9s"');
    await writeFile(path, changed);
    const again = await runner.write({ mirrorUrl: 'http://127.0.0.1:7999' });
    expect(fileOf(again).notes.at(-1)).toMatch(/^Salvor's entry was changed/);
    expect(await text()).toBe(changed);
    await runner.write({ mirrorUrl: 'http://127.0.0.1:7999', force: true });
    expect(await text()).not.toContain('9s');
    await runner.restore();
    expect(await text()).toBe(original);
  });

  test('knows its entry when its state was lost', async () => {
    await rm(runner.state, { recursive: true });
    await runner.write({ mirrorUrl: 'http://127.0.0.1:7999' });
    expect((await text()).match(/salvor: begin/g)).toHaveLength(1);
    await runner.restore();
    expect(await text()).toBe(original);
  });

  test('has nothing to do where the directory is gone', async () => {
    await rm(join(runner.tree, 'certs.d'), { recursive: true });
    expect(await runner.restore()).toContain(`foreign: ${path}`);
    await expect(stat(runner.state)).resolves.toBeDefined();
    await expect(stat(join(runner.state, 'hosts'))).rejects.toThrow('ENOENT');
  });

  test('withdraws from a file when it can no longer do what it says', async () => {
    await writeFile(join(runner.tree, 'ca.pem'), '-----BEGIN CERTIFICATE-----\n');
    const withCa = `${original}ca = "${runner.tree}/ca.pem"\n`;
    await writeFile(path, withCa);
    expect(fileOf(await runner.write()).state).toBe('joined');
    await unlink(join(runner.tree, 'ca.pem'));
    expect(fileOf(await runner.write({ dryRun: true })).state).toBe('to be withdrawn');
    expect(fileOf(await runner.write())).toMatchObject({ state: 'left alone' });
    expect(await text()).toBe(withCa);
    expect(await readFile(join(runner.state, 'hosts', 'record.json'), 'utf8')).not.toContain(path);
  });

  test('tells the registry anew when certificates have changed behind the same name', async () => {
    const ca = join(runner.tree, 'ca.pem');
    await writeFile(ca, '-----BEGIN CERTIFICATE-----\none\n');
    await writeFile(path, `${original}ca = "${ca}"\n`);
    await runner.write();
    const settings = join(runner.state, 'upstreams', 'hosts.json');
    const first = await readFile(settings, 'utf8');
    await writeFile(ca, '-----BEGIN CERTIFICATE-----\ntwo\n');
    expect(await runner.write()).toMatchObject({ isChanged: true });
    expect(await readFile(settings, 'utf8')).not.toBe(first);
    expect(await runner.write()).toMatchObject({ isChanged: false });
  });

  test('gives back everything in a tree that nobody has touched', async () => {
    await runner.restore();
    expect(await describeTree(runner.tree)).toEqual(before);
  });

  test('does nothing with a record that it cannot read', async () => {
    const after = await describeTree(runner.tree);
    await writeFile(join(runner.state, 'hosts', 'record.json'), '{"version":2}');
    await expect(runner.write()).rejects.toThrow('Cannot understand');
    await expect(runner.restore()).rejects.toThrow('Cannot understand');
    expect(await describeTree(runner.tree)).toEqual(after);
  });
});
