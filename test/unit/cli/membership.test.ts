import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeMembership } from '../../../src/cli/membership.ts';
import { loadConfig } from '../../../src/config/load.ts';
import type { Member } from '../../../src/discovery/membership.ts';
import { silentLogger, type Logger } from '../../../src/telemetry/logger.ts';
import { expectNoLeaks } from '../../support/no-leaks.ts';
import { waitFor } from '../../support/wait.ts';

expectNoLeaks();

const context = { signal: new AbortController().signal, fail: () => undefined };
let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'salvor-membership-'));
});

afterEach(() => rm(directory, { recursive: true }));

async function configOf(names: readonly string[]) {
  const members = names.map((name, n) => ({ name, address: `192.0.2.${n + 1}:7999` }));
  const env = {
    SALVOR_NODE_NAME: 'self',
    SALVOR_NODE_STATE_DIRECTORY: directory,
    SALVOR_AGENT_MEMBERS_STATIC: JSON.stringify(members),
  };
  return loadConfig({ env });
}

describe('nodeMembership', () => {
  it('nodeMembership says that new settings failed, goes on, and takes the next ones', async () => {
    const failures: unknown[] = [];
    const log: Logger = {
      ...silentLogger,
      error: (fields: object) => void failures.push(fields),
    };
    let broken = false;
    const seen: string[][] = [];
    const onChange = (members: readonly Member[]): void => {
      if (broken) throw new Error('out of files');
      seen.push(members.map(({ name }) => name));
    };
    const first = await configOf(['a']);
    const membership = nodeMembership(first, { log, metrics: new Registry(), onChange });
    await membership.service.start(context);
    broken = true;
    membership.apply((await configOf(['a', 'b'])).agent.members);

    await waitFor(() => failures.length === 1);
    expect(failures).toMatchObject([{ err: { message: 'out of files' }, source: 'static' }]);
    broken = false;
    membership.apply((await configOf(['a', 'b', 'c'])).agent.members);
    await waitFor(() => seen.length === 2);
    expect(seen).toEqual([['a'], ['a', 'b', 'c']]);
    await membership.service.stop(context);
  });
});
