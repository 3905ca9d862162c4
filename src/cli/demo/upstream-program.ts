import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';

// A process of its own, so that it can be killed for real. Serves the demo's image from a
// directory, or stands in front of a real registry: upstream-program serve DIRECTORY PORT,
// upstream-program forward URL PORT. Listens on loopback only.

const [mode, target = '', port = '0'] = process.argv.slice(2);
const PIECE_BYTES = 64 * 1024;

interface Content {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body?: Readable;
}

/** Where the body of one blob is to stop, for the process to be killed there. */
let halt: { readonly haltAt: string; readonly afterBytes: number } | undefined;

process.on('message', (message) => {
  halt = message as typeof halt;
});
process.on('disconnect', () => process.exit(0));

createServer((request, response) => {
  const find = mode === 'forward' ? forwarded : stored;
  find(request)
    .then((content) => send(request, response, content))
    .catch(() => response.destroy());
}).listen({ host: '127.0.0.1', port: Number(port) }, () => {
  process.stdout.write('listening\n');
});

async function send(
  request: IncomingMessage,
  response: ServerResponse,
  content: Content,
): Promise<void> {
  const { body } = content;
  response.writeHead(content.status, content.headers);
  response.once('close', () => body?.destroy());
  if (request.method === 'HEAD' || body === undefined) {
    response.end();
    return;
  }
  let passed = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    const isHalted = halt !== undefined && (request.url ?? '').includes(halt.haltAt);
    const left = isHalted ? (halt?.afterBytes ?? 0) - passed : chunk.length;
    const piece = chunk.subarray(0, left);
    passed += piece.length;
    if (!response.write(piece)) await new Promise((resolve) => response.once('drain', resolve));
    if (piece.length < chunk.length) {
      process.send?.({ halted: passed });
      return;
    }
  }
  response.end();
}

async function stored(request: IncomingMessage): Promise<Content> {
  const path = (request.url ?? '').split('?', 1)[0] ?? '';
  const match = /^\/v2\/(?<repository>.+)\/(?<kind>manifests|blobs)\/(?<reference>[^/]+)$/.exec(
    path,
  );
  if (match?.groups === undefined) return { status: 200, headers: { 'content-length': '0' } };
  const { repository, kind, reference = '' } = match.groups;
  const tags = JSON.parse(await readFile(join(target, 'tags.json'), 'utf8')) as Readonly<
    Record<string, string | undefined>
  >;
  const digest =
    kind === 'manifests' ? (tags[`${repository}:${reference}`] ?? reference) : reference;
  const hex = /^sha256:(?<hex>[0-9a-f]{64})$/.exec(digest)?.groups?.['hex'];
  if (hex === undefined) return missing();
  const file = join(target, 'blobs', hex);
  const info = await stat(file).catch(() => undefined);
  if (info === undefined) return missing();
  const headers = {
    'content-type': kind === 'manifests' ? await mediaTypeOf(file) : 'application/octet-stream',
    'docker-content-digest': digest,
    'accept-ranges': 'bytes',
  };
  const { size } = info;
  // Whoever continues a blob after this process was started again asks in this form.
  const start = Number(
    /^bytes=(?<start>\d+)-$/.exec(request.headers.range ?? '')?.groups?.['start'],
  );
  if (start > 0 && start < size) {
    const range = { 'content-range': `bytes ${start}-${size - 1}/${size}` };
    return {
      status: 206,
      headers: { ...headers, ...range, 'content-length': String(size - start) },
      body: createReadStream(file, { highWaterMark: PIECE_BYTES, start }),
    };
  }
  return {
    status: 200,
    headers: { ...headers, 'content-length': String(size) },
    body: createReadStream(file, { highWaterMark: PIECE_BYTES }),
  };
}

async function mediaTypeOf(file: string): Promise<string> {
  return (JSON.parse(await readFile(file, 'utf8')) as { mediaType: string }).mediaType;
}

async function forwarded(request: IncomingMessage): Promise<Content> {
  const headers = new Headers({ 'accept-encoding': 'identity' });
  for (const name of ['accept', 'authorization', 'range', 'user-agent']) {
    const value = request.headers[name];
    if (typeof value === 'string') headers.set(name, value);
  }
  const answer = await fetch(target + (request.url ?? ''), {
    method: request.method ?? 'GET',
    headers,
  });
  const passedOn = [
    'content-type',
    // A length of compressed bytes is not the length of what is passed on.
    ...(answer.headers.has('content-encoding') ? [] : ['content-length']),
    'content-range',
    'docker-content-digest',
    'www-authenticate',
    'date',
  ].flatMap((name) => {
    const value = answer.headers.get(name);
    return value === null ? [] : [[name, value] as const];
  });
  return {
    status: answer.status,
    headers: Object.fromEntries(passedOn),
    ...(answer.body === null ? {} : { body: Readable.fromWeb(answer.body as never) }),
  };
}

function missing(): Content {
  return { status: 404, headers: { 'content-length': '0' } };
}
