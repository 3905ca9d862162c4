import { create } from '@bufbuild/protobuf';
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { safeNumber } from './agent-protocol.ts';
import {
  RecordProofRequestSchema,
  type RecordProofRequest,
} from './gen/salvor/agent/v1/agent_pb.ts';

/** What putting the verdicts of a report to the proof came to. */
export interface ProofSummary {
  /** Milliseconds since the epoch. */
  readonly endedAtMs: number;
  readonly tookMs: number;
  /** Every image that was to be pulled was. */
  readonly isComplete: boolean;
  /** That were pulled, each counted once for each platform. */
  readonly images: number;
  readonly servable: number;
  /** Images of which the verdict was another than the proof. */
  readonly differences: number;
  /** Read from nodes and hashed. */
  readonly bytes: number;
}

/** @returns the summary as a message */
export function proofToMessage(proof: ProofSummary): RecordProofRequest {
  return create(RecordProofRequestSchema, {
    endedAt: timestampFromMs(proof.endedAtMs),
    tookMs: BigInt(Math.round(proof.tookMs)),
    complete: proof.isComplete,
    images: BigInt(proof.images),
    servable: BigInt(proof.servable),
    differences: BigInt(proof.differences),
    bytes: BigInt(proof.bytes),
  });
}

/** @returns undefined when the message makes no sense */
export function proofFromMessage(message: RecordProofRequest): ProofSummary | undefined {
  if (message.endedAt === undefined) return undefined;
  try {
    return {
      endedAtMs: timestampMs(message.endedAt),
      tookMs: safeNumber(message.tookMs),
      isComplete: message.complete,
      images: safeNumber(message.images),
      servable: safeNumber(message.servable),
      differences: safeNumber(message.differences),
      bytes: safeNumber(message.bytes),
    };
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}
