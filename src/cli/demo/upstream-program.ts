import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

// A process of its own, so that it can be killed for real. Serves the demo's image from a
// directory, or stands in front of a real registry: upstream-program serve DIRECTORY PORT,
// upstream-program forward URL PORT. Listens on loopback only.

const [mode, target = '', port = '0'] = process.argv.slice(2);
const PIECE_BYTES = 64 * 1024;

let bytesPerSecond = Number.POSITIVE_INFINITY;

interface Content {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body?: Readable;
}

process.on('message', (message: { bytesPerSecond?: number }) => {
  if (message.bytesPerSecond !== undefined)
    ({ bytesPerSecond } = message as { bytesPerSecond: number });
});
process.on('disconnect', () => process.exit(0));

createServer((request, response) => {
  const find = mode === 'forward' ? forwarded : stored;
  find(request)
    .then((content) => send(request, response, content))
    .catch(() => response.destroy());
}).listen({ host: '127.0.0.1', port: Number(port) }, () => console_('listening'));

async function send(
  request: IncomingMessage,
  response: ServerResponse,
  content: Content,
): Promise<void> {
  response.writeHead(content.status, content.headers);
  if (request.method === 'HEAD' || content.body === undefined) {
    content.body?.destroy();
    response.end();
    return;
  }
  let passed = 0;
  for await (const chunk of content.body as AsyncIterable<Buffer>) {
    for (let start = 0; start < chunk.length; start += PIECE_BYTES) {
      const piece = chunk.subarray(start, start + PIECE_BYTES);
      if (!response.write(piece)) await new Promise((resolve) => response.once('drain', resolve));
      passed += piece.length;
      process.send?.({ path: request.url ?? '', passed });
      if (Number.isFinite(bytesPerSecond)) await sleep((1000 * piece.length) / bytesPerSecond);
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
  const tags = JSON.parse(await readFile(join(target, 'tags.json'), 'utf8')) as Record<
    string,
    { digest: string; mediaType: string } | undefined
  >;
  const tagged = Object.entries(tags).find(
    ([name, tag]) => name === `${repository}:${reference}` || tag?.digest === reference,
  )?.[1];
  const digest = kind === 'blobs' ? reference : tagged?.digest;
  if (digest === undefined || !/^sha256:[0-9a-f]{64}$/.test(digest)) return missing();
  const file = join(target, 'blobs', digest.replace(':', '-'));
  const size = await stat(file).then(
    (info) => info.size,
    () => undefined,
  );
  if (size === undefined) return missing();
  return {
    status: 200,
    headers: {
      'content-type': kind === 'blobs' ? 'application/octet-stream' : (tagged?.mediaType ?? ''),
      'content-length': String(size),
      'docker-content-digest': digest,
    },
    body: createReadStream(file, { highWaterMark: PIECE_BYTES }),
  };
}

async function forwarded(request: IncomingMessage): Promise<Content> {
  const headers = new Headers();
  for (const name of ['accept', 'authorization', 'range', 'user-agent']) {
    const value = request.headers[name];
    if (typeof value === 'string') headers.set(name, value);
  }
  headers.set('accept-encoding', 'identity');
  const answer = await fetch(target + (request.url ?? ''), {
    method: request.method ?? 'GET',
    headers,
  });
  const kept = ['content-type', 'content-length', 'content-range', 'docker-content-digest'];
  const passedOn = [...kept, 'www-authenticate', 'date'].flatMap((name) => {
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

function console_(line: string): void {
  process.stdout.write(`${line}\n`);
}
