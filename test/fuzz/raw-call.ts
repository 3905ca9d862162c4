import { connect, constants, type ClientHttp2Session, type Settings } from 'node:http2';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';

const patienceMs = 10_000;

/** A call as its bytes, right or wrong. */
export interface RawCall {
  readonly path: string;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** How a call ended. */
export interface RawAnswer {
  /** Of HTTP; undefined when the stream was reset. */
  readonly http: number | undefined;
  /** Of gRPC, where there was one. */
  readonly code: number | undefined;
}

/** HTTP/2 over a socket, for calls that no gRPC library would make. */
export function openSession(socket: Duplex, settings: Settings = {}): ClientHttp2Session {
  const session = connect('http://agent', { createConnection: () => socket, settings });
  // What the other end thinks of it is seen on the streams.
  session.on('error', () => undefined);
  return session;
}

/**
 * Makes a call and says how it ends.
 *
 * @throws when it does not end
 */
export async function rawCall(session: ClientHttp2Session, call: RawCall): Promise<RawAnswer> {
  const { promise, resolve } = Promise.withResolvers<RawAnswer>();
  const stream = session.request({
    ':path': call.path,
    ':method': call.method ?? 'POST',
    te: 'trailers',
    'content-type': 'application/grpc',
    ...call.headers,
  });
  const seen: { http: number | undefined; code: number | undefined } = {
    http: undefined,
    code: undefined,
  };
  const noteCode = (headers: Record<string, unknown>): void => {
    const code = headers['grpc-status'];
    if (code !== undefined) seen.code = Number(code);
  };
  stream.on('response', (headers) => {
    seen.http = Number(headers[constants.HTTP2_HEADER_STATUS]);
    noteCode(headers);
  });
  stream.on('trailers', noteCode);
  stream.on('error', () => undefined);
  stream.on('close', () => resolve(seen));
  stream.resume();
  stream.end(call.body);
  const stop = new AbortController();
  const late = delay(patienceMs, undefined, { signal: stop.signal, ref: false }).then(
    () => {
      stream.close(constants.NGHTTP2_CANCEL);
      throw new Error(
        `Cannot see the end of ${JSON.stringify({ ...call, body: call.body.length })}`,
      );
    },
    () => seen,
  );
  return Promise.race([promise, late]).finally(() => stop.abort());
}

/** A message as gRPC sends it: a flag, a length, the bytes. */
export function framed(
  message: Buffer,
  wrong: { readonly flag?: number; readonly length?: number } = {},
): Buffer {
  const head = Buffer.alloc(5);
  head[0] = wrong.flag ?? 0;
  head.writeUInt32BE(wrong.length ?? message.length, 1);
  return Buffer.concat([head, message]);
}
