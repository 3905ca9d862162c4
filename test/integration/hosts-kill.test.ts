import { execFile } from 'node:child_process';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

import { parseToml } from '../../src/node/toml-table.ts';
import { describeTree, plantTree } from '../support/certs-trees.ts';
import { suiteScope } from '../support/test-scope.ts';
import { repositoryRoot } from '../support/tools.ts';

const scope = suiteScope('hosts-kill');
const script = join(repositoryRoot, 'test/support/hosts-child.ts');
const childTimeoutMs = 30_000;

const entries = {
  'a.test/hosts.toml': {
    text: '[host."https://m.test"]\n[host."https://m.test".header]\nX = "y"\n',
    mode: 0o640,
    owner: 1000,
  },
  'b.test/hosts.toml': { link: '../shared.toml' },
  'shared.toml': 'server = "https://b.test"\n[host."https://m.test"]\n',
  'c.test': { directoryMode: 0o700 },
};
const files = ['a.test', 'b.test', 'c.test', '_default'].map((name) => `${name}/hosts.toml`);

interface Place {
  readonly root: string;
  readonly state: string;
}

/** @returns whether it was killed at the step; otherwise it had fewer, and is done */
async function run(verb: string, { root, state }: Place, step: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      process.execPath,
      [script, verb, root, state, String(step)],
      { timeout: childTimeoutMs, killSignal: 'SIGTERM' },
      (error) => {
        if (error === null) resolve(false);
        else if (child.signalCode === 'SIGKILL') resolve(true);
        else reject(new Error('Cannot run the child', { cause: error }));
      },
    );
  });
}

/** Every hosts.toml there is, with all that can be told of it. */
async function hostsFiles({ root }: Place): Promise<Record<string, string | undefined>> {
  const all = await describeTree(root);
  return Object.fromEntries(files.map((name) => [name, all[name]]));
}

function withoutDate(description: string | undefined): string | undefined {
  return description?.replace(/^(file \d+ \d+:\d+) \S+/, '$1');
}

describe('salvor hosts killed at any moment', () => {
  test('leaves each file old or new, and can be undone or gone on with', async () => {
    const model: Place = {
      root: join(scope().directory, 'm'),
      state: join(scope().directory, 'ms'),
    };
    await mkdir(model.root);
    await plantTree(model.root, { name: 'kill', entries, joined: [] });
    const before = await describeTree(model.root);
    const old = await hostsFiles(model);
    const installed: Place = {
      root: join(scope().directory, 'i'),
      state: join(scope().directory, 'is'),
    };
    await mkdir(installed.root);
    await plantTree(installed.root, { name: 'kill', entries, joined: [] });
    expect(await run('write', installed, 0)).toBe(false);
    const now = await hostsFiles(installed);

    const seen = { old: 0, new: 0 };
    let step = 1;
    for (let isKilled = true; isKilled; step += 1) {
      const place: Place = {
        root: join(scope().directory, `r${step}`),
        state: join(scope().directory, `s${step}`),
      };
      await mkdir(place.root);
      await plantTree(place.root, { name: 'kill', entries, joined: [] });
      const own = await describeTree(place.root);
      isKilled = await run('write', place, step);
      for (const [name, found] of Object.entries(await hostsFiles(place))) {
        const isOld = withoutDate(found) === withoutDate(old[name]);
        const isNew = withoutDate(found) === withoutDate(now[name]);
        expect(isOld || isNew, `${name} after step ${step}`).toBe(true);
        seen[isNew ? 'new' : 'old'] += 1;
        if (isNew) parseToml(await readFile(join(place.root, name), 'utf8'));
      }
      if (step % 2 === 0) {
        expect(await run('write', place, 0)).toBe(false);
        const again = Object.values(await hostsFiles(place)).map(withoutDate);
        expect(again).toEqual(Object.values(now).map(withoutDate));
      }
      // Killed while it restores, and begun again.
      await run('restore', place, step);
      expect(await run('restore', place, 0)).toBe(false);
      expect(await describeTree(place.root), `restored after step ${step}`).toEqual(own);
    }
    expect(step).toBeGreaterThan(20);
    expect(seen.old).toBeGreaterThan(10);
    expect(seen.new).toBeGreaterThan(10);
    expect(await describeTree(model.root)).toEqual(before);
  });
});
