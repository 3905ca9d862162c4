import { describe, expect, test } from 'vitest';

import { createLogger, silentLogger } from '../../../src/telemetry/logger.ts';
import type { LogFields, LoggerOptions } from '../../../src/telemetry/logger.ts';

interface Line {
  readonly level: string;
  readonly time: string;
  readonly msg: string;
  readonly err?: unknown;
  readonly [name: string]: unknown;
}

function capture(options: Partial<LoggerOptions> = {}) {
  const lines: Line[] = [];
  const stream = { write: (text: string) => void lines.push(JSON.parse(text) as Line) };
  return { lines, log: createLogger({ level: 'info', stream, ...options }) };
}

function logged(fields: LogFields): Line {
  const { lines, log } = capture();
  log.info(fields, 'x');
  return lines[0]!;
}

describe('createLogger', () => {
  test('Logger writes level, time, fields and message as one JSON object', () => {
    const { lines, log } = capture({ fields: { role: 'registry' } });
    log.child({ part: 'pull' }).warn({ tookMs: 5 }, 'Slow');
    expect(lines).toEqual([
      {
        level: 'warn',
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) as string,
        role: 'registry',
        part: 'pull',
        tookMs: 5,
        msg: 'Slow',
      },
    ]);
  });

  test('Logger leaves out what is below its level', () => {
    const { lines, log } = capture({ level: 'warn' });
    log.debug({}, 'a');
    log.info({}, 'b');
    log.warn({}, 'c');
    log.error({}, 'd');
    expect(lines.map(({ msg }) => msg)).toEqual(['c', 'd']);
  });

  test('Logger takes a new level over for its children, too', () => {
    const { lines, log } = capture();
    const child = log.child({}).child({});
    log.setLevel('error');
    child.warn({}, 'a');
    child.error({}, 'b');
    log.setLevel('debug');
    child.debug({}, 'c');
    log.setLevel('silent');
    child.error({}, 'd');
    expect(lines.map(({ msg }) => msg)).toEqual(['b', 'c']);
  });

  test.each([
    { authorization: 'Basic secret' },
    { headers: { Authorization: 'Bearer secret', 'set-cookie': ['secret'] } },
    { request: { headers: { authorization: 'secret', 'proxy-authorization': 'secret' } } },
    { answer: { token: 'secret', access_token: 'secret', refresh_token: 'secret' } },
    { credentials: { password: 'secret', identityToken: 'secret' } },
  ])('Logger hides the credentials of %j', (fields) => {
    const text = JSON.stringify(logged(fields));
    expect(text).not.toContain('secret');
    expect(text).toContain('[redacted]');
  });

  test('Logger keeps of an error its type, message, code, stack and causes only', () => {
    const cause = Object.assign(new Error('refused'), {
      code: 'ECONNREFUSED',
      request: { headers: { authorization: 'secret' } },
    });
    const { err } = logged({ err: new TypeError('Cannot ask', { cause }) });
    expect(err).toEqual({
      type: 'TypeError',
      message: 'Cannot ask',
      stack: expect.stringContaining('TypeError: Cannot ask') as string,
      cause: { type: 'Error', message: 'refused', code: 'ECONNREFUSED' },
    });
  });

  test('Logger ends at an error that is its own cause', () => {
    const error = new Error('round');
    error.cause = error;
    expect(JSON.stringify(logged({ err: error }).err).match(/round/g)!.length).toBeLessThan(10);
  });

  test('Logger takes anything that was thrown for an error', () => {
    expect(logged({ err: 'text' }).err).toBe('text');
    expect(logged({ err: { token: 'secret' } }).err).toBe('[not an error]');
  });
});

test('silentLogger gives children that are silent too', () => {
  expect(silentLogger.child({ a: 1 })).toBe(silentLogger);
});
