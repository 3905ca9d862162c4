import { Server, status, type ServerUnaryCall, type ServerWritableStream } from '@grpc/grpc-js';
import { create } from '@bufbuild/protobuf';
import { setTimeout as delay } from 'node:timers/promises';
import { peerService, tagToMessage, type TagStatement } from '../../src/rpc/agent-protocol.ts';
import { issueIdentity, type Authority } from '../../src/rpc/certificates.ts';
import {
  ReportCorruptResponseSchema,
  ResolveResponseSchema,
  StatResponseSchema,
  type ReadRequest,
  type ReportCorruptRequest,
  type ResolveRequest,
  type StatRequest,
} from '../../src/rpc/gen/salvor/agent/v1/agent_pb.ts';
import { mutualServerCredentials } from './grpc-credentials.ts';
import { READ_FRAME_HEADROOM_BYTES, encodeReadFrame } from '../../src/rpc/read-frame.ts';
import type { TestScope } from './test-scope.ts';

const chunkBytes = 64 * 1024;
const alteredByte = 10;
const lyingExtraBytes = 100;

/** How a node behaves about one blob that it says it holds. */
export type PeerConduct =
  | 'honest'
  /** One byte is another. */
  | 'wrongBytes'
  /** It says more bytes than there are, and sends those that there are. */
  | 'wrongLength'
  /** Says that it is busy, and refuses to read. */
  | 'busy'
  /** Half a second for the first byte, then 1 MiB a second. */
  | 'slow'
  /** Ends the stream with an error at half of the blob. */
  | 'cut'
  /** Sends nothing more from half of the blob on. */
  | 'stall';

interface HeldBlob {
  readonly bytes: Buffer;
  readonly conduct: PeerConduct;
  readonly verified: boolean;
}

/**
 * A node's agent that can lie and fail in every way that the protocol allows: a real gRPC server
 * with mutual TLS and a certificate of the cluster. What it was not told of, it does not hold.
 */
export class FakePeer {
  readonly name: string;
  /** How often each method was called. */
  readonly calls = { stat: 0, read: 0, resolve: 0, reportCorrupt: 0 };
  /** Digests that others have complained about. */
  readonly reported: string[] = [];
  readonly #server: Server;
  readonly #blobs = new Map<string, HeldBlob>();
  readonly #tags = new Map<string, readonly TagStatement[]>();

  private constructor(name: string) {
    this.name = name;
    this.#server = new Server();
    this.#server.addService(peerService, {
      stat: (call: ServerUnaryCall<StatRequest, unknown>, callback: Callback) => {
        this.calls.stat += 1;
        callback(null, this.#stat(call.request.digest));
      },
      read: (call: ServerWritableStream<ReadRequest, Buffer>) => {
        this.calls.read += 1;
        call.on('error', () => undefined);
        void this.#read(call);
      },
      resolve: (call: ServerUnaryCall<ResolveRequest, unknown>, callback: Callback) => {
        this.calls.resolve += 1;
        const tags = this.#tags.get(call.request.name) ?? [];
        const answer = { tags: tags.map(tagToMessage), registrySeen: tags.length > 0 };
        callback(null, create(ResolveResponseSchema, answer));
      },
      list: (call: ServerWritableStream<unknown, unknown>) => call.end(),
      reportCorrupt: (call: ServerUnaryCall<ReportCorruptRequest, unknown>, callback: Callback) => {
        this.calls.reportCorrupt += 1;
        this.reported.push(call.request.digest);
        callback(null, create(ReportCorruptResponseSchema));
      },
    });
  }

  /**
   * Starts a peer that ends with the scope.
   *
   * @param options.address "127.0.0.1:port" that the list of members has for it
   */
  static async start(
    scope: TestScope,
    options: { readonly name: string; readonly address: string; readonly authority: Authority },
  ): Promise<FakePeer> {
    const peer = new FakePeer(options.name);
    const identity = await issueIdentity(options.authority, ['agent']);
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    peer.#server.bindAsync(options.address, mutualServerCredentials(identity), (error) => {
      if (error === null) resolve(undefined);
      else reject(error);
    });
    await promise;
    scope.defer(() => peer.#server.forceShutdown());
    return peer;
  }

  /**
   * Says from now on that it holds a blob.
   *
   * @param options.verified whether it claims to have hashed it; it does unless told
   */
  hold(
    digest: string,
    bytes: Buffer,
    options: { readonly conduct?: PeerConduct; readonly verified?: boolean } = {},
  ): void {
    const { conduct = 'honest', verified = true } = options;
    this.#blobs.set(digest, { bytes, conduct, verified });
  }

  /** Says from now on what a tag names. */
  know(name: string, tags: readonly TagStatement[]): void {
    this.#tags.set(name, tags);
  }

  /** Forgets blobs and tags. */
  forget(keys: Iterable<string>): void {
    for (const key of keys) {
      this.#blobs.delete(key);
      this.#tags.delete(key);
    }
  }

  #stat(digest: string): unknown {
    const held = this.#blobs.get(digest);
    return create(StatResponseSchema, {
      held: held !== undefined,
      sizeBytes: BigInt(held === undefined ? 0 : claimedSize(held)),
      verified: held?.verified ?? false,
      busy: held?.conduct === 'busy',
    });
  }

  async #read(call: ServerWritableStream<ReadRequest, Buffer>): Promise<void> {
    const { digest, offsetBytes, lengthBytes } = call.request;
    const held = this.#blobs.get(digest);
    if (held === undefined || held.conduct === 'busy') {
      const code = held === undefined ? status.NOT_FOUND : status.RESOURCE_EXHAUSTED;
      call.emit('error', { code, details: 'made by a test' });
      return;
    }
    const { bytes, conduct } = held;
    const start = Number(offsetBytes);
    const end = lengthBytes === 0n ? bytes.length : start + Number(lengthBytes);
    const half = Math.floor((start + Math.min(end, bytes.length)) / 2);
    if (conduct === 'slow') await delay(500);
    for (let at = start; at === start || at < Math.min(end, bytes.length); at += chunkBytes) {
      if (call.cancelled) return;
      const goesOn = conduct !== 'cut' && conduct !== 'stall';
      const stop = Math.min(end, bytes.length, at + chunkBytes, goesOn ? bytes.length : half);
      await send(call, { held, from: at, to: Math.max(at, stop), isFirst: at === start });
      if (!goesOn && stop === half) break;
      if (conduct === 'slow') await delay((chunkBytes / 1024 / 1024) * 1000);
    }
    if (conduct === 'stall') return;
    if (conduct === 'cut') call.emit('error', { code: status.UNAVAILABLE, details: 'cut' });
    else call.end();
  }
}

type Callback = (error: null, value: unknown) => void;

function claimedSize({ bytes, conduct }: HeldBlob): number {
  return bytes.length + (conduct === 'wrongLength' ? lyingExtraBytes : 0);
}

async function send(
  call: ServerWritableStream<ReadRequest, Buffer>,
  part: { readonly held: HeldBlob; readonly from: number; to: number; readonly isFirst: boolean },
): Promise<void> {
  const { held, from, to, isFirst } = part;
  const data = Buffer.from(held.bytes.subarray(from, to));
  const altered = alteredByte - from;
  if (held.conduct === 'wrongBytes' && altered >= 0 && altered < data.length) {
    data[altered] = data[altered]! ^ 1;
  }
  const buffer = Buffer.concat([Buffer.alloc(READ_FRAME_HEADROOM_BYTES), data]);
  const first = { sizeBytes: claimedSize(held), verified: held.verified };
  const frame = encodeReadFrame(buffer, data.length, isFirst ? first : undefined);
  if (call.write(frame)) return;
  // A reader that has gone drains nothing.
  const { promise, resolve } = Promise.withResolvers<undefined>();
  call.once('drain', () => resolve(undefined));
  call.once('cancelled', () => resolve(undefined));
  await promise;
}
