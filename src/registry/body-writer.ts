import type { ServerResponse } from 'node:http';
import { waitForClient, type ClientPatience, type ClientWait } from '../http/client-wait.ts';
import { notePassedBytes } from '../telemetry/passed-bytes.ts';
import type { BodyStream, RelayEnd } from './answer.ts';
import { WrongBytesError } from './relay.ts';
import type { Turn } from './turns.ts';
import { WriteBatch } from './write-batch.ts';

/** How a body was sent. */
export interface SentBody {
  readonly end: RelayEnd | 'client_gone' | 'client_stalled';
  readonly bytes: number;
  readonly error?: unknown;
}

export interface BodyWriteOptions extends ClientPatience {
  /** Its place among the bodies that are being sent. */
  readonly turn?: Turn | undefined;
}

/**
 * Sends a body at the pace of the client. A relay that breaks ends the connection with FIN, so
 * that containerd resumes; one that turned out to be wrong ends it with RST, so that it does not.
 */
export async function writeBody(
  response: ServerResponse,
  body: BodyStream,
  options: BodyWriteOptions,
): Promise<SentBody> {
  let bytes = 0;
  const batch = new WriteBatch(response);
  const { turn } = options;
  try {
    for await (const chunk of body.chunks) {
      if (options.signal.aborted) return { end: 'client_gone', bytes };
      bytes += chunk.length;
      batch.add(chunk);
      turn?.note(chunk.length);
      notePassedBytes(chunk.length);
      if (batch.isFull) {
        batch.flush();
        const drained = batch.mustDrain ? await drain(response, batch, options) : 'done';
        if (drained !== 'done') return { end: drained, bytes };
      }
      const elders = turn?.standBack();
      if (elders !== undefined) await elders;
    }
    batch.flush();
    response.end();
    const finished = await waitForClient(response, 'finish', options);
    return { end: finished === 'done' ? 'complete' : finished, bytes };
  } catch (error) {
    if (options.signal.aborted) return { end: 'client_gone', bytes };
    if (error instanceof WrongBytesError) {
      response.socket?.resetAndDestroy();
      return { end: 'wrong_bytes', bytes, error };
    }
    batch.flush();
    // What is written already still goes out before the FIN, if the client takes it in time.
    response.socket?.setTimeout(options.clientStallMs, () => response.socket?.destroy());
    response.socket?.destroySoon();
    return { end: 'cut', bytes, error };
  } finally {
    batch.drop();
    body.cancel();
    turn?.leave();
  }
}

/** Sends a body that is there in full. */
export async function writeWholeBody(
  response: ServerResponse,
  body: Buffer,
  options: BodyWriteOptions,
): Promise<SentBody> {
  response.end(body);
  const finished = await waitForClient(response, 'finish', options);
  return { end: finished === 'done' ? 'complete' : finished, bytes: body.length };
}

async function drain(
  response: ServerResponse,
  batch: WriteBatch,
  options: BodyWriteOptions,
): Promise<ClientWait> {
  const sinceMs = performance.now();
  const drained = await waitForClient(response, 'drain', options);
  batch.noteDrain(performance.now() - sinceMs);
  return drained;
}
