import { EventEmitter } from 'node:events';

import { beforeEach, describe, expect, test } from 'vitest';
import { parse } from 'yaml';

import type { CommandContext, DemoOptions } from '../../../src/cli/command.ts';
import { runProgram } from '../../../src/cli/program.ts';
import type { ProgramDependencies } from '../../../src/cli/program.ts';
import type { Config } from '../../../src/config/schema.ts';
import { namedSettings } from '../../../src/config/setting-name.ts';

interface Call {
  readonly name: string;
  readonly config: Config;
  readonly context: CommandContext & Partial<DemoOptions>;
}

let calls: Call[];
let out: string;
let errors: string;
let signals: EventEmitter & { exit: (code: number) => void };

beforeEach(() => {
  calls = [];
  out = '';
  errors = '';
  signals = Object.assign(new EventEmitter(), { exit: () => undefined });
});

type Behaviour = (context: CommandContext) => Promise<void>;

function dependencies(
  env: Record<string, string>,
  behaviour: Behaviour = () => Promise.resolve(),
): ProgramDependencies {
  const loader = (name: string) => () =>
    Promise.resolve(async (config: Config, context: CommandContext) => {
      calls.push({ name, config, context });
      await behaviour(context);
    });
  return {
    version: '1.2.3',
    env,
    signals,
    loaders: {
      registry: loader('registry'),
      agent: loader('agent'),
      start: loader('start'),
      demo: loader('demo'),
    },
    writeOut: (text) => (out += text),
    writeError: (text) => (errors += text),
  };
}

async function run(argv: string[], env: Record<string, string> = {}, behaviour?: Behaviour) {
  return await runProgram(argv, dependencies(env, behaviour));
}

describe('runProgram', () => {
  test('runProgram gives a command its configuration from flags and environment', async () => {
    const code = await run(
      ['start', '--start-listen', '127.0.0.1:1', '--registry-allow', 'a.test', '--log-level=debug'],
      { SALVOR_WATCHDOG_TIMEOUT_MS: '2s' },
    );
    expect([code, errors]).toEqual([0, '']);
    expect(calls.map(({ name }) => name)).toEqual(['start']);
    const { config, context } = calls[0]!;
    expect(config.start.listen).toBe('127.0.0.1:1');
    expect(config.registry.allow).toEqual(['a.test']);
    expect(config.log.level).toBe('debug');
    expect(config.watchdog.timeoutMs).toBe(2000);
    expect(context.version).toBe('1.2.3');
  });

  test('runProgram offers every setting as a flag of the commands it matters to', async () => {
    await run(['config', '--help']);
    for (const { flag } of namedSettings) {
      expect(out).toContain(`${flag} <`);
    }
    out = '';
    await run(['registry', '--help']);
    expect(out).toContain('--registry-listen <address>');
    expect(out).not.toContain('--agent-listen');
    expect(out).not.toContain('--start-listen');
  });

  test.each(['registry', 'agent', 'start', 'demo', 'config'])(
    'runProgram prints help for %s and runs nothing',
    async (name) => {
      expect(await run([name, '--help'])).toBe(0);
      expect(out).toContain(`Usage: salvor ${name}`);
      expect(out).toContain('--config <file>');
      expect([calls, errors]).toEqual([[], '']);
    },
  );

  test('runProgram prints the version', async () => {
    expect([await run(['--version']), out]).toEqual([0, '1.2.3\n']);
  });

  test.each([
    [[], 'Usage: salvor'],
    [['registri'], '(Did you mean registry?)'],
    [['registry', '--registry-lisen', 'a:1'], '(Did you mean --registry-listen?)'],
    [['registry', '--registry-listen'], 'argument missing'],
    [['registry', 'now'], 'too many arguments'],
    [['config', 'everything'], 'Allowed choices are registry, agent, start, demo'],
  ])('runProgram refuses %j with code 2', async (argv, message) => {
    expect(await run(argv)).toBe(2);
    expect(errors).toContain(message);
    expect(calls).toEqual([]);
  });

  test('runProgram prints every mistake of a configuration and exits with 2', async () => {
    const code = await run(['start', '--log-level', 'loud'], { SALVOR_START_LISTEN: 'x' });
    expect(code).toBe(2);
    expect(errors).toMatch(/^Cannot use the configuration: 2 mistakes\n {2}.*\n {2}.*\n$/);
    expect(calls).toEqual([]);
  });

  test('runProgram checks what only the called command needs', async () => {
    expect(await run(['agent'])).toBe(2);
    expect(errors).toContain('tls.ca (default)');
  });

  test('runProgram says in one line why a command failed and exits with 1', async () => {
    const fail = () => Promise.reject(new Error('Cannot listen on a:1: taken\nmore\nlines'));
    expect(await run(['start'], {}, fail)).toBe(1);
    expect(errors).toBe('salvor: Cannot listen on a:1: taken\n');
  });

  test('runProgram aborts the command at SIGTERM and takes its listeners away', async () => {
    const code = await run(['start'], {}, async ({ signal }) => {
      const aborted = new Promise((resolve) => {
        signal.addEventListener('abort', resolve);
      });
      signals.emit('SIGTERM', 'SIGTERM');
      await aborted;
    });
    expect([code, signals.listenerCount('SIGTERM')]).toEqual([0, 0]);
  });

  test('runProgram hands the options of the demo on', async () => {
    await run(['demo']);
    await run(['demo', '--keep', '--image', 'alpine:3']);
    expect(calls.map(({ context }) => [context.keep, context.image])).toEqual([
      [false, undefined],
      [true, 'alpine:3'],
    ]);
  });

  test('runProgram prints the effective configuration as YAML that loads again', async () => {
    expect(await run(['config', '--registry-budgets-hedge-ms', '1s'])).toBe(0);
    const printed = parse(out) as Config;
    expect(printed.registry.budgets.hedgeMs).toBe(1000);
    expect(printed.tls.mode).toBe('mutual');
    expect(Object.keys(printed)).toContain('agent');
  });

  test('runProgram prints no secret of a configuration', async () => {
    const upstreams = { 'a.test': { headers: { Authorization: 'Basic c2VjcmV0' } } };
    const env = { SALVOR_REGISTRY_UPSTREAMS: JSON.stringify(upstreams) };
    expect(await run(['config'], env)).toBe(0);
    expect(out).not.toContain('c2VjcmV0');
    const { registry } = parse(out) as Config;
    expect(registry.upstreams['a.test']?.headers).toEqual({ Authorization: '[redacted]' });
  });

  test('runProgram checks a configuration for another command', async () => {
    expect(await run(['config', 'agent'])).toBe(2);
    expect(errors).toContain('tls.key (default)');
  });
});
