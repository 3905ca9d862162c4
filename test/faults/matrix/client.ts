import { once } from 'node:events';
import { request, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';

/** What one client asks for. */
export interface ClientRequest {
  readonly method: 'GET' | 'HEAD';
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** For the headers, milliseconds. */
  readonly headersTimeoutMs: number;
  /** For the body, from its first byte, milliseconds. */
  readonly bodyTimeoutMs: number;
}

/** What it got. */
export interface ClientAnswer {
  /** 0 when no headers came. */
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly headersMs: number;
  readonly totalMs: number;
  readonly body: Buffer;
  /** How the body ended; `timeout` when this client has left. */
  readonly end: 'complete' | 'fin' | 'rst' | 'timeout';
}

/**
 * Asks with nothing but Node's own HTTP client, on a connection of its own, and tells apart what
 * HTTP libraries lump together: an answer that ends too early politely, and one that is reset.
 */
export async function ask(wanted: ClientRequest): Promise<ClientAnswer> {
  const startedAt = performance.now();
  const abort = new AbortController();
  const seen = { reset: false };
  const outgoing = request(wanted.url, {
    method: wanted.method,
    headers: { accept: '*/*', ...wanted.headers },
    agent: false,
    signal: abort.signal,
  });
  outgoing.once('socket', (socket) => {
    socket.once('error', (error: NodeJS.ErrnoException) => {
      seen.reset = error.code === 'ECONNRESET';
    });
  });
  const late = setTimeout(() => abort.abort(), wanted.headersTimeoutMs);
  const elapsed = (): number => performance.now() - startedAt;
  let response: IncomingMessage;
  try {
    outgoing.end();
    [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  } catch {
    const end = abort.signal.aborted ? 'timeout' : seen.reset ? 'rst' : 'fin';
    const [headersMs, totalMs] = [elapsed(), elapsed()];
    return { status: 0, headers: {}, headersMs, totalMs, body: Buffer.alloc(0), end };
  } finally {
    clearTimeout(late);
  }
  outgoing.on('error', () => undefined);
  const headersMs = elapsed();
  const chunks: Buffer[] = [];
  const leave = setTimeout(() => abort.abort(), wanted.bodyTimeoutMs);
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  } catch {
    // How it ended is told below.
  } finally {
    clearTimeout(leave);
  }
  const { statusCode: status = 0, headers, complete } = response;
  const end = complete ? 'complete' : abort.signal.aborted ? 'timeout' : seen.reset ? 'rst' : 'fin';
  return { status, headers, headersMs, totalMs: elapsed(), body: Buffer.concat(chunks), end };
}
