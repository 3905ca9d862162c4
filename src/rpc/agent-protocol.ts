import type { Timestamp } from '@bufbuild/protobuf/wkt';
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { create } from '@bufbuild/protobuf';
import { parseDigest, type Digest } from '../oci/digest.ts';
import {
  Local,
  Peer,
  TagSchema,
  type ListResponse,
  type Tag,
} from './gen/salvor/agent/v1/agent_pb.ts';
import { readFrameCodec } from './read-frame.ts';
import { methodDefinition, serviceDefinition } from './service-definition.ts';

/** The last moment that a Date can stand for, milliseconds since the epoch. */
const MAX_TIME_MS = 8.64e15;

/** The Peer service for a grpc-js server. */
export const peerService = serviceDefinition(Peer, { read: { response: readFrameCodec } });

/** The Local service for a grpc-js server. */
export const localService = serviceDefinition(Local);

/** Peer's methods for a grpc-js client. */
export const peerMethods = {
  stat: methodDefinition(Peer.method.stat),
  read: methodDefinition(Peer.method.read, { response: readFrameCodec }),
  resolve: methodDefinition(Peer.method.resolve),
  list: methodDefinition(Peer.method.list),
  reportCorrupt: methodDefinition(Peer.method.reportCorrupt),
  inventory: methodDefinition(Peer.method.inventory),
  reach: methodDefinition(Peer.method.reach),
};

/** Local's methods for a grpc-js client. */
export const localMethods = {
  locate: methodDefinition(Local.method.locate),
  observe: methodDefinition(Local.method.observe),
  abortIngest: methodDefinition(Local.method.abortIngest),
  keep: methodDefinition(Local.method.keep),
  watch: methodDefinition(Local.method.watch),
  recordProof: methodDefinition(Local.method.recordProof),
};

/** One statement about what a tag names, checked: what {@link Tag} is on the wire. */
export interface TagStatement {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly sizeBytes: number;
  /** When the upstream confirmed it, milliseconds since the epoch by the upstream's clock. */
  readonly observedAtMs?: number;
  /** When the store last wrote its record of the name; same unit. */
  readonly recordedAtMs?: number;
}

/** @returns the statement as a message */
export function tagToMessage(tag: TagStatement): Tag {
  return create(TagSchema, {
    digest: tag.digest,
    mediaType: tag.mediaType,
    sizeBytes: BigInt(tag.sizeBytes),
    ...(tag.observedAtMs === undefined ? {} : { observedAt: timestampFromMs(tag.observedAtMs) }),
    ...(tag.recordedAtMs === undefined ? {} : { recordedAt: timestampFromMs(tag.recordedAtMs) }),
  });
}

/** @returns undefined when the message makes no sense, which is how nonsense is ignored */
export function tagFromMessage(tag: Tag): TagStatement | undefined {
  const digest = parseDigest(tag.digest);
  if (!digest.ok || tag.mediaType === '' || !isSafe(tag.sizeBytes)) return undefined;
  return {
    digest: digest.value,
    mediaType: tag.mediaType,
    sizeBytes: safeNumber(tag.sizeBytes),
    ...optionalMs('observedAtMs', tag.observedAt),
    ...optionalMs('recordedAtMs', tag.recordedAt),
  };
}

/** A part of what a node holds, checked. */
export interface HeldPart {
  readonly blobs: readonly { readonly digest: Digest; readonly sizeBytes: number }[];
  /** What its names point at. */
  readonly named: readonly Digest[];
}

/** What makes no sense is left out. */
export function heldFromMessage({ blobs, names }: ListResponse): HeldPart {
  return {
    blobs: blobs.flatMap(({ digest, sizeBytes }) => {
      const parsed = parseDigest(digest);
      return parsed.ok && isSafe(sizeBytes)
        ? [{ digest: parsed.value, sizeBytes: Number(sizeBytes) }]
        : [];
    }),
    named: names.flatMap(({ tag }) => (tag && tagFromMessage(tag)?.digest) ?? []),
  };
}

/**
 * Converts a size or an offset of the wire.
 *
 * @throws RangeError when it is negative or not exact in a double
 */
export function safeNumber(value: bigint): number {
  if (!isSafe(value)) {
    throw new RangeError(`Cannot use ${value.toString()} as a size: out of range`);
  }
  return Number(value);
}

function isSafe(value: bigint): boolean {
  return value >= 0n && value <= BigInt(Number.MAX_SAFE_INTEGER);
}

function optionalMs<K extends string>(
  key: K,
  value: Timestamp | undefined,
): Partial<Record<K, number>> {
  const ms = value === undefined ? Number.NaN : timestampMs(value);
  // A time that no calendar has is none.
  return ms >= 0 && ms <= MAX_TIME_MS ? ({ [key]: ms } as Record<K, number>) : {};
}
