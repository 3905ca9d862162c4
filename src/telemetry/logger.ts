import { destination, pino } from 'pino';
import type { DestinationStream } from 'pino';

/** How much is logged, from most to least; "silent" is for tests. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

/** What stands beside a message: plain values; an `Error` belongs under the key `err`. */
export type LogFields = Readonly<Record<string, unknown>>;

/** The little that our code needs of a logger, so that any object with these methods will do. */
export interface Logger {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  /** @returns a logger that adds `fields` to every line */
  child(fields: LogFields): Logger;
}

/** A logger whose level can be changed while it runs. */
export interface AdjustableLogger extends Logger {
  /** Counts from the next line on, for all loggers that descend from this one. */
  setLevel(level: LogLevel): void;
}

export interface LoggerOptions {
  readonly level: LogLevel;
  /** Added to every line, such as the role and the node's name. */
  readonly fields?: LogFields;
  /** Where lines go; standard output where left out. */
  readonly stream?: DestinationStream;
}

const maxBufferedBytes = 4 * 1024 * 1024;
const maxCauses = 5;
const secretNames = [
  'authorization',
  'Authorization',
  'cookie',
  'Cookie',
  '["set-cookie"]',
  '["proxy-authorization"]',
  '["Proxy-Authorization"]',
  'password',
  'token',
  'access_token',
  'refresh_token',
  'accessToken',
  'refreshToken',
  'identityToken',
];

function secretPaths(): string[] {
  return secretNames.flatMap((name) => {
    const below = name.startsWith('[') ? name : `.${name}`;
    return [name, `*${below}`, `*.*${below}`];
  });
}

/**
 * What is kept of an error: foreign libraries hang requests and headers on theirs, and those
 * must not reach a log.
 */
function describeError(error: unknown, depth = 0): unknown {
  if (!(error instanceof Error)) {
    return typeof error === 'object' ? '[not an error]' : error;
  }
  const code: unknown = 'code' in error ? error.code : undefined;
  return {
    type: error.name,
    message: error.message,
    ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
    ...(depth === 0 ? { stack: error.stack } : {}),
    ...(error.cause !== undefined && depth < maxCauses
      ? { cause: describeError(error.cause, depth + 1) }
      : {}),
  };
}

function standardOutput(): DestinationStream {
  // Asynchronous and bounded: whoever reads our output slowly loses lines, but never halts pulls.
  const stream = destination({ dest: 1, sync: false, maxLength: maxBufferedBytes });
  process.on('exit', () => {
    try {
      stream.flushSync();
    } catch {
      // Nothing was written yet, or nobody reads any more.
    }
  });
  return stream;
}

/**
 * A logger that writes one JSON object a line: `level` as a word, `time` as ISO 8601 UTC, the
 * fields, `msg`. Credentials under well-known names are replaced by "[redacted]", down to three
 * levels, and errors are reduced to type, message, code, stack and causes.
 */
export function createLogger(options: LoggerOptions): AdjustableLogger {
  const lines = pino(
    {
      // What is left out is decided before: children of this one would not follow a change.
      level: 'debug',
      base: options.fields ?? {},
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: secretPaths(), censor: '[redacted]' },
      serializers: { err: (error: unknown) => describeError(error) },
    },
    options.stream ?? standardOutput(),
  );
  const threshold = { rank: ranks[options.level] };
  return {
    ...filtered(lines, threshold),
    setLevel: (level) => void (threshold.rank = ranks[level]),
  };
}

const ranks: Readonly<Record<LogLevel, number>> = {
  debug: 0,
  info: 1,
  warn: 2,
  error: 3,
  silent: 4,
};

/** Of two levels the one at which more is logged. */
export function moreVerbose(first: LogLevel, second: LogLevel): LogLevel {
  return ranks[first] < ranks[second] ? first : second;
}

/** @param threshold shared by all descendants of one logger */
function filtered(lines: Logger, threshold: { readonly rank: number }): Logger {
  const writer =
    (level: Exclude<LogLevel, 'silent'>) =>
    (fields: LogFields, message: string): void => {
      if (ranks[level] >= threshold.rank) lines[level](fields, message);
    };
  return {
    debug: writer('debug'),
    info: writer('info'),
    warn: writer('warn'),
    error: writer('error'),
    child: (fields) => filtered(lines.child(fields), threshold),
  };
}

/** A logger that says nothing, for tests and for embedding. */
export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLogger,
};
