import { Readable } from 'node:stream';
import type { UpstreamResponse } from '../../../../src/registry/upstream/upstream-client.ts';

/** An upstream's answer as if it had come over the wire. */
export function responseOf(options: {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string | string[]>>;
  readonly body?: Buffer | Readable;
}): UpstreamResponse {
  const { status = 200, headers = {}, body = Buffer.alloc(0) } = options;
  const stream = Buffer.isBuffer(body) ? Readable.from(body.length === 0 ? [] : [body]) : body;
  return {
    status,
    headers,
    body: stream as unknown as UpstreamResponse['body'],
    host: 'registry.test',
  };
}

/** A body that sends what it is given and then neither ends nor goes on. */
export function stalledBody(...chunks: readonly Buffer[]): Readable {
  const rest = [...chunks];
  return new Readable({
    read() {
      const next = rest.shift();
      if (next !== undefined) this.push(next);
    },
  });
}

/** A body that breaks off after what it is given. */
export function cutBody(...chunks: readonly Buffer[]): Readable {
  const rest = [...chunks];
  return new Readable({
    read() {
      const next = rest.shift();
      if (next !== undefined) this.push(next);
      else this.destroy(new Error('other side closed'));
    },
  });
}
