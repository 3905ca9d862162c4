import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import type { Service, ServiceContext, StopContext } from '../../../src/cli/service-group.ts';
import { ServiceGroup } from '../../../src/cli/service-group.ts';

interface LogLine {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly message: string;
}

let events: string[];
let lines: LogLine[];
let contexts: Map<string, ServiceContext>;
let end: AbortController;

beforeEach(() => {
  events = [];
  lines = [];
  contexts = new Map();
  end = new AbortController();
});

afterEach(() => {
  vi.useRealTimers();
});

function service(
  name: string,
  behaviour: {
    readonly start?: () => Promise<void>;
    readonly stop?: (context: StopContext) => Promise<void>;
  } = {},
): Service {
  return {
    name,
    async start(context) {
      events.push(`start ${name}`);
      contexts.set(name, context);
      await behaviour.start?.();
    },
    async stop(context) {
      events.push(`stop ${name}`);
      await behaviour.stop?.(context);
    },
  };
}

function group(): ServiceGroup {
  const log = (fields: Readonly<Record<string, unknown>>, message: string): void => {
    lines.push({ fields, message });
  };
  return new ServiceGroup({ drainMs: 1000, cutMs: 100 }, { log: { info: log, warn: log } });
}

function messages(): string[] {
  return lines.map(({ message }) => message);
}

describe('ServiceGroup', () => {
  test('ServiceGroup starts in order, says ready, and stops in reverse', async () => {
    const services = [service('a'), service('b'), service('c')];
    const ready = (): void => {
      events.push('ready');
      end.abort();
    };
    await group().run(services, { signal: end.signal, ready });
    expect(events).toEqual([
      'start a',
      'start b',
      'start c',
      'ready',
      'stop c',
      'stop b',
      'stop a',
    ]);
    expect(messages()).toEqual(['Stopped']);
  });

  test('ServiceGroup stops what has started when a start fails, and throws that failure', async () => {
    const failing = service('b', { start: () => Promise.reject(new Error('port is taken')) });
    const run = group().run([service('a'), failing, service('c')], { signal: end.signal });
    await expect(run).rejects.toThrow('port is taken');
    expect(events).toEqual(['start a', 'start b', 'stop a']);
  });

  test('ServiceGroup stops everything when a running service fails, and throws the first failure', async () => {
    const ready = (): void => {
      contexts.get('a')?.fail(new Error('first'));
      contexts.get('b')?.fail(new Error('second'));
    };
    const run = group().run([service('a'), service('b')], { signal: end.signal, ready });
    await expect(run).rejects.toThrow('first');
    expect(events).toEqual(['start a', 'start b', 'stop b', 'stop a']);
  });

  test('ServiceGroup stops everything when ready throws', async () => {
    const ready = (): never => {
      throw new Error('cannot say so');
    };
    await expect(group().run([service('a')], { signal: end.signal, ready })).rejects.toThrow(
      'cannot say so',
    );
    expect(events).toEqual(['start a', 'stop a']);
  });

  test('ServiceGroup starts nothing further once it is to end', async () => {
    const first = service('a', { start: async () => end.abort() });
    await group().run([first, service('b')], { signal: end.signal });
    expect(events).toEqual(['start a', 'stop a']);
  });

  test('ServiceGroup takes a start that was broken off at the end for no failure', async () => {
    const slow = service('b', {
      start: async () => {
        end.abort();
        throw new Error('aborted');
      },
    });
    await group().run([service('a'), slow], { signal: end.signal });
    expect(events).toEqual(['start a', 'start b', 'stop a']);
  });

  test('ServiceGroup stops the others when one cannot be stopped', async () => {
    const bad = service('b', { stop: () => Promise.reject(new Error('stuck')) });
    const run = group().run([service('a'), bad], { signal: end.signal, ready: () => end.abort() });
    await run;
    expect(events).toEqual(['start a', 'start b', 'stop b', 'stop a']);
    expect(lines[0]).toMatchObject({
      fields: { service: 'b', err: new Error('stuck') },
      message: 'Cannot stop a service cleanly',
    });
  });

  test('ServiceGroup gives all services together one deadline, then leaves the stuck behind', async () => {
    vi.useFakeTimers();
    const stuck = (name: string): Service =>
      service(name, {
        stop: async ({ signal }) => {
          signal.addEventListener('abort', () => events.push(`cut ${name} at ${Date.now()}`));
          await new Promise(() => undefined);
        },
      });
    vi.setSystemTime(0);
    const run = group().run([stuck('a'), stuck('b')], {
      signal: end.signal,
      ready: () => end.abort(),
    });
    await vi.advanceTimersByTimeAsync(1000);
    expect(events).toEqual(['start a', 'start b', 'stop b', 'cut b at 1000']);
    // Not in time for a service that is stopped after the deadline: its signal has aborted before.
    await vi.advanceTimersByTimeAsync(200);
    await run;
    expect(events.at(-1)).toBe('stop a');
    expect(messages()).toEqual([
      'Service did not stop in time, leaving it behind',
      'Service did not stop in time, leaving it behind',
      'Stopped',
    ]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test('ServiceGroup lets running work end within the deadline and leaves no timer behind', async () => {
    vi.useFakeTimers();
    const draining = service('a', {
      stop: async ({ signal }) => {
        await new Promise((resolve) => setTimeout(resolve, 900));
        events.push(signal.aborted ? 'cut' : 'drained');
      },
    });
    const run = group().run([draining], { signal: end.signal, ready: () => end.abort() });
    await vi.advanceTimersByTimeAsync(900);
    await run;
    expect(events).toEqual(['start a', 'stop a', 'drained']);
    expect(vi.getTimerCount()).toBe(0);
  });
});
