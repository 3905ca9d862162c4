// A process that reads blobs over plain HTTP/1.1 and only counts the bytes: node blob-reader.ts
// '{"port":…,"path":"/v2/…","connections":1,"bytesPerSecond":0}'. Prints one JSON line at the end.
// Sockets fill the same buffer again and again, so that reading costs the machine little.
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** What to read. */
export interface BlobReadPlan {
  readonly port: number;
  /** With the query. */
  readonly path: string;
  readonly connections: number;
  /** Of each connection; 0: as fast as it goes. */
  readonly bytesPerSecond: number;
}

/** What was read. */
export interface BlobReadReport {
  /** Of all bodies. */
  readonly bytes: number;
  /** From the first connection to the last byte. */
  readonly elapsedMs: number;
}

const fastBufferBytes = 1024 * 1024;
const slowBufferBytes = 16 * 1024;

async function readBlob(plan: BlobReadPlan): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const { port, path, bytesPerSecond } = plan;
  const bufferBytes = bytesPerSecond > 0 ? slowBufferBytes : fastBufferBytes;
  let head = '';
  let declaredBytes = -1;
  let receivedBytes = 0;
  const onBytes = (count: number, buffer: Uint8Array): boolean => {
    receivedBytes += count;
    if (declaredBytes < 0) {
      head += Buffer.from(buffer.buffer, buffer.byteOffset, count).toString('latin1');
      const end = head.indexOf('\r\n\r\n');
      if (end < 0) return true;
      const length = /^content-length: (\d+)$/im.exec(head.slice(0, end).replaceAll('\r', ''))?.[1];
      if (!head.startsWith('HTTP/1.1 200 ') || length === undefined) {
        socket.destroy(new Error(`Cannot read ${path}: ${head.slice(0, 500)}`));
        return false;
      }
      declaredBytes = Number(length);
      receivedBytes = head.length - end - 4;
    }
    if (receivedBytes >= declaredBytes) socket.end();
    if (bytesPerSecond === 0) return true;
    void delay((count / bytesPerSecond) * 1000).then(() => socket.resume());
    return false;
  };
  const socket = connect({
    host: '127.0.0.1',
    port,
    onread: { buffer: Buffer.allocUnsafe(bufferBytes), callback: onBytes },
  });
  socket.once('error', reject);
  socket.once('close', () => {
    if (receivedBytes === declaredBytes) resolve(receivedBytes);
    else reject(new Error(`Cannot read ${path}: ${receivedBytes} of ${declaredBytes} bytes came`));
  });
  socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: close\r\n\r\n`);
  return promise;
}

if (import.meta.main) {
  const plan = JSON.parse(process.argv[2] ?? '{}') as BlobReadPlan;
  const startedMs = performance.now();
  const reads = Array.from({ length: plan.connections }, () => readBlob(plan));
  const counts = await Promise.all(reads);
  const report: BlobReadReport = {
    bytes: counts.reduce((sum, count) => sum + count, 0),
    elapsedMs: performance.now() - startedMs,
  };
  console.log(JSON.stringify(report));
}
