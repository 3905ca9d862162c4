import { BusyError, type ByteBudget, type ByteLease } from './byte-budget.ts';
import { SourceError, type OpenedBody } from './sources/source.ts';
import { withStallGuard } from './stall-guard.ts';

export interface ReadWholeOptions {
  /** Bodies that are longer are refused. */
  readonly maxBytes: number;
  /** As for {@link withStallGuard}, milliseconds. */
  readonly stallMs: number;
  /** Pays for the bytes while they come in, and no longer. */
  readonly budget: Pick<ByteBudget, 'open'>;
  /** Holds the whole from the moment that it is there. */
  readonly lease?: Pick<ByteLease, 'hold'>;
}

/**
 * Reads a body into memory, as far as the budget lets it grow. The source is stopped in the end,
 * however it ends.
 *
 * @throws SourceError "too_long", "stalled" or what the body itself throws; BusyError when the
 *   budget has nothing left
 */
export async function readWhole(
  body: Pick<OpenedBody, 'chunks' | 'cancel' | 'source'>,
  options: ReadWholeOptions,
): Promise<Buffer> {
  const { budget, lease, maxBytes, stallMs } = options;
  const parts: Buffer[] = [];
  const reading = budget.open();
  let sizeBytes = 0;
  try {
    for await (const part of withStallGuard(body, stallMs)) {
      sizeBytes += part.length;
      if (sizeBytes > maxBytes) {
        throw new SourceError('too_long', `${body.source} sends more than ${maxBytes} bytes`);
      }
      if (!reading.grow(part.length)) {
        throw new BusyError(`Cannot read ${body.source}: too many bytes are in flight`);
      }
      parts.push(part);
    }
    const whole = Buffer.concat(parts);
    reading.release();
    lease?.hold(whole);
    return whole;
  } finally {
    reading.release();
    body.cancel();
  }
}
