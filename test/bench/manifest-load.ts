// A process that asks for the same thing again and again over a few connections that are kept:
// node manifest-load.ts '{"port":…,"path":"/v2/…","connections":8,"seconds":2}'. One request at a
// time on each. Prints one JSON line at the end.
import { connect } from 'node:net';

/** What to ask for. */
export interface ManifestLoadPlan {
  readonly port: number;
  /** With the query. */
  readonly path: string;
  readonly connections: number;
  readonly seconds: number;
  readonly accept: string;
}

/** What came back. */
export interface ManifestLoadReport {
  readonly requests: number;
  readonly elapsedMs: number;
}

const bufferBytes = 64 * 1024;
const headEnd = Buffer.from('\r\n\r\n');

async function ask(plan: ManifestLoadPlan, untilMs: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const { port, path, accept } = plan;
  const request = `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAccept: ${accept}\r\n\r\n`;
  let requests = 0;
  let pending: Buffer = Buffer.alloc(0);
  const onBytes = (count: number, buffer: Uint8Array): boolean => {
    pending = Buffer.concat([pending, buffer.subarray(0, count)]);
    const end = pending.indexOf(headEnd);
    if (end < 0) return true;
    const head = pending.toString('latin1', 0, end);
    const length = /^content-length: (\d+)/im.exec(head)?.[1];
    if (!head.startsWith('HTTP/1.1 200 ') || length === undefined) {
      socket.destroy(new Error(`Cannot get ${path}: ${head}`));
      return false;
    }
    if (pending.length < end + headEnd.length + Number(length)) return true;
    pending = Buffer.alloc(0);
    requests += 1;
    if (performance.now() < untilMs) socket.write(request);
    else socket.end();
    return true;
  };
  const socket = connect({
    host: '127.0.0.1',
    port,
    noDelay: true,
    onread: { buffer: Buffer.allocUnsafe(bufferBytes), callback: onBytes },
  });
  socket.once('error', reject);
  socket.once('close', () => {
    if (performance.now() >= untilMs) resolve(requests);
    else reject(new Error(`Cannot go on with ${path}: the server has closed the connection`));
  });
  socket.write(request);
  return promise;
}

if (import.meta.main) {
  const plan = JSON.parse(process.argv[2] ?? '{}') as ManifestLoadPlan;
  const startedMs = performance.now();
  const untilMs = startedMs + plan.seconds * 1000;
  const runs = Array.from({ length: plan.connections }, () => ask(plan, untilMs));
  const counts = await Promise.all(runs);
  const report: ManifestLoadReport = {
    requests: counts.reduce((sum, count) => sum + count, 0),
    elapsedMs: performance.now() - startedMs,
  };
  console.log(JSON.stringify(report));
}
