import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createAuthority, issueIdentity } from '../../src/rpc/certificates.ts';
import type { Identity } from '../../src/rpc/identity.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { waitFor } from '../support/wait.ts';
import { makeSocketDirectory, removeDirectory } from '../support/work-dir.ts';
import { AgentScene } from './agent-scene.ts';
import { processStart } from '../../src/telemetry/process-start.ts';

const LIMITS = { timeoutMs: 5000 };

expectNoLeaks();

let identity: Identity;
let directory: string;
const scenes: AgentScene[] = [];
const children: ChildProcess[] = [];

beforeAll(async () => {
  identity = await issueIdentity(await createAuthority(), ['agent']);
  directory = await makeSocketDirectory();
});

afterEach(async () => {
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
  children.length = 0;
  for (const scene of scenes) await scene[Symbol.asyncDispose]();
  scenes.length = 0;
});

afterAll(() => removeDirectory(directory));

async function start(options: { kill?: (pid: number) => void } = {}): Promise<AgentScene> {
  const socket = join(directory, `agent-${scenes.length}.sock`);
  const scene = await AgentScene.start({ identity, socket, ...options });
  scenes.push(scene);
  return scene;
}

describe('Local.Watch', () => {
  const SILENCE_MS = 1000;

  interface Watched {
    readonly child: ChildProcess & { readonly pid: number };
    readonly lines: string[];
    readonly exited: Promise<[code: number | null, signal: string | null]>;
  }

  async function watchedProcess(scene: AgentScene): Promise<Watched> {
    const script = join(import.meta.dirname, 'watched-process.ts');
    const child = spawn(process.execPath, [script, scene.socket, String(SILENCE_MS)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    children.push(child);
    const lines: string[] = [];
    createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
    const exited = once(child, 'exit') as Watched['exited'];
    await waitFor(() => scene.watched.includes(child.pid ?? 0));
    return { child: child as Watched['child'], lines, exited };
  }

  it('Local.Watch ends a process that falls silent, and none that parted in peace', async () => {
    const scene = await start({ kill: (pid) => process.kill(pid, 'SIGKILL') });
    const [silent, peaceful] = await Promise.all([watchedProcess(scene), watchedProcess(scene)]);
    peaceful.child.stdin?.write('part');
    await waitFor(() => peaceful.lines.length === 1);
    // Both are as silent as a process can be; only one of them had said so.
    peaceful.child.kill('SIGSTOP');
    silent.child.kill('SIGSTOP');
    expect(await silent.exited).toEqual([null, 'SIGKILL']);
    expect(scene.killed).toEqual([silent.child.pid]);
    expect([peaceful.child.exitCode, peaceful.child.signalCode]).toEqual([null, null]);
  });

  it('Local.Watch ends nobody when the process itself has gone', async () => {
    const scene = await start();
    const [gone, silent] = await Promise.all([watchedProcess(scene), watchedProcess(scene)]);
    gone.child.kill('SIGKILL');
    await gone.exited;
    silent.child.kill('SIGSTOP');
    await waitFor(() => scene.killed.length > 0);
    expect(scene.killed).toEqual([silent.child.pid]);
  });

  it.each([
    { pid: 0, timeoutMs: 1000 },
    { pid: -1, timeoutMs: 1000 },
    { pid: 2 ** 40, timeoutMs: 1000 },
    { pid: process.pid, timeoutMs: 0 },
    { pid: process.pid, timeoutMs: -5 },
  ])('Local.Watch refuses $pid and $timeoutMs, and the agent lives on', async (options) => {
    const scene = await start();
    const client = scene.local();
    const ended = Promise.withResolvers<unknown>();
    client.watch({ ...options, processStart: '1' }, { onEnd: ended.resolve });
    expect(await ended.promise).toMatchObject({ kind: 'invalid' });
    const { digest } = scene.store.add(1);
    expect(await client.stat(digest, LIMITS)).toBeDefined();
    expect(scene.killed).toEqual([]);
  });

  it('Local.Watch says when it has begun, and refuses a process that it cannot see', async () => {
    const scene = await start();
    const client = scene.local();
    const begun = Promise.withResolvers<undefined>();
    const ended = Promise.withResolvers<unknown>();
    // The parent runs the same program.
    const other = { pid: process.ppid, timeoutMs: 60_000 };
    const watch = client.watch(
      { ...other, processStart: await processStart(process.ppid) },
      { onBegin: () => begun.resolve(undefined), onEnd: () => undefined },
    );
    await begun.promise;
    watch.end();
    client.watch({ ...other, processStart: '1' }, { onEnd: ended.resolve });
    expect(await ended.promise).toMatchObject({ cause: { code: 9 } });
    expect(scene.killed).toEqual([]);
  });
});
