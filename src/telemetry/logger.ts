import { destination, pino } from 'pino';
import type { DestinationStream, Logger as PinoLogger } from 'pino';

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
export function createLogger(options: LoggerOptions): Logger {
  const logger: PinoLogger = pino(
    {
      level: options.level,
      base: options.fields ?? {},
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: secretPaths(), censor: '[redacted]' },
      serializers: { err: (error: unknown) => describeError(error) },
    },
    options.stream ?? standardOutput(),
  );
  return logger;
}

/** A logger that says nothing, for tests and for embedding. */
export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => silentLogger,
};
