import type { Exchange, ResponsePiece } from './http-tap.ts';

/** What can be made wrong in an answer whose bytes otherwise pass. */
export type Alteration =
  /** One byte of the body, the eleventh, is another. */
  | 'bytes'
  /** Content-Length is smaller than the body, which then ends there: HTTP finds nothing wrong. */
  | 'length'
  /** Content-Type is text/html. */
  | 'type';

const alteredByte = 10;
const missingShare = 0.1;

/** Alters the answers of one connection, piece by piece. */
export class AnswerAlterer {
  readonly #claimedBytes = new WeakMap<Exchange, number>();

  /**
   * @param passedBytes how much of this answer's body was given to this method before
   * @returns the bytes to be sent instead; for `length`, none once what was claimed is sent
   */
  alter(piece: ResponsePiece, what: Alteration, passedBytes: number): Buffer {
    if (!piece.isBody) return this.#alterHead(piece, what);
    const { bytes, exchange } = piece;
    if (what === 'bytes') return flipped(bytes, alteredByte - passedBytes);
    const claimed = exchange === undefined ? undefined : this.#claimedBytes.get(exchange);
    if (what === 'type' || claimed === undefined) return bytes;
    return bytes.subarray(0, Math.max(0, claimed - passedBytes));
  }

  #alterHead({ bytes, exchange }: ResponsePiece, what: Alteration): Buffer {
    const head = bytes.toString('latin1');
    if (what === 'type') {
      return Buffer.from(head.replace(/^(content-type:).*$/im, '$1 text/html'), 'latin1');
    }
    if (what !== 'length' || exchange === undefined) return bytes;
    const altered = head.replace(/^(content-length: *)(\d+)/im, (_, name: string, size: string) => {
      const claimed = Math.floor(Number(size) * (1 - missingShare));
      this.#claimedBytes.set(exchange, claimed);
      return `${name}${claimed}`;
    });
    return Buffer.from(altered, 'latin1');
  }
}

function flipped(bytes: Buffer, at: number): Buffer {
  const byte = bytes[at];
  if (byte === undefined) return bytes;
  const copy = Buffer.from(bytes);
  copy[at] = byte ^ 1;
  return copy;
}
