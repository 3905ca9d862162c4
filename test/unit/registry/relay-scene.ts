import { randomBytes } from 'node:crypto';
import { digestOf } from '../../../src/oci/digest.ts';
import { Relay, type BlobTap, type NextSource } from '../../../src/registry/relay.ts';
import type { OpenedBody } from '../../../src/registry/sources/source.ts';
import { FakeBody, inChunks } from './fake-body.ts';

export const KIB = 1024;
export const STALL_MS = 5000;
/** A blob that is checked before its first byte goes out, and one that is not. */
export const small = randomBytes(200 * KIB);
export const big = randomBytes(2 * 1024 * KIB + 777);

export interface Asked {
  readonly failed: string;
  readonly outcome: string;
  readonly start: number;
  readonly hashed: boolean;
}

/** Gives the next bodies in order and remembers what was asked for. */
function sequence(bodies: readonly OpenedBody[]): { next: NextSource; asked: Asked[] } {
  const rest = [...bodies];
  const asked: Asked[] = [];
  return {
    asked,
    next: async (failed, { outcome }, { start, hashed }) => {
      asked.push({ failed: failed.source, outcome, start, hashed });
      return rest.shift();
    },
  };
}

export function relayOf(
  bytes: Buffer,
  bodies: readonly [OpenedBody, ...OpenedBody[]],
  options: { window?: { start: number; end: number }; tap?: BlobTap; claimed?: Buffer } = {},
) {
  const [first, ...others] = bodies;
  const { next, asked } = sequence(others);
  const relay = new Relay(
    {
      digest: digestOf(options.claimed ?? bytes),
      window: options.window ?? { start: 0, end: bytes.length - 1 },
      sizeBytes: bytes.length,
      stallMs: STALL_MS,
      maxIdleSwitches: 4,
    },
    { first, nextSource: next, tap: options.tap },
  );
  return { relay, asked };
}

/** What a client got: the bytes, and the error that ended them. */
export async function read(relay: Relay): Promise<{ bytes: Buffer; error: unknown }> {
  const parts: Buffer[] = [];
  try {
    for await (const part of relay.chunks()) parts.push(part);
  } catch (error) {
    return { bytes: Buffer.concat(parts), error };
  }
  return { bytes: Buffer.concat(parts), error: undefined };
}

export function recordingTap(): BlobTap & { readonly events: string[]; bytes: () => Buffer } {
  const events: string[] = [];
  const parts: Buffer[] = [];
  return {
    events,
    bytes: () => Buffer.concat(parts),
    write: async (chunk) => {
      if (events.length > 0) throw new Error(`write after ${events.join()}`);
      parts.push(Buffer.from(chunk));
    },
    commit: async () => void events.push('commit'),
    abort: async () => void events.push('abort'),
  };
}

export function altered(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  copy[copy.length >> 1]! ^= 1;
  return copy;
}

export function whole(
  bytes: Buffer,
  options: { source?: string; trusted?: boolean } = {},
): FakeBody {
  return new FakeBody({ ...options, sizeBytes: bytes.length, steps: inChunks(bytes, 64 * KIB) });
}
