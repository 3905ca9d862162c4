import { create } from '@bufbuild/protobuf';
import type { Digest } from '../oci/digest.ts';
import type { CallLimits } from './agent-channel.ts';
import { AgentError } from './agent-error.ts';
import { localMethods, tagToMessage, type TagStatement } from './agent-protocol.ts';
import {
  AbortIngestRequestSchema,
  KeepRequestSchema,
  ObserveRequestSchema,
  WatchRequestSchema,
} from './gen/salvor/agent/v1/agent_pb.ts';
import {
  locateFromMessage,
  locateToMessage,
  type LocateEvent,
  type LocateKey,
  type SecondLook,
} from './locate-messages.ts';
import { PeerClient } from './peer-client.ts';
import { proofToMessage, type ProofSummary } from './proof-summary.ts';

export type { LocatedHolder, LocateKey, LocateSummary } from './locate-messages.ts';

/** An image whose manifest has passed, and the indexes that name it. */
export interface PassedImage {
  readonly manifest: Digest;
  readonly indexes: readonly Digest[];
}

/** Asks the agent of the own node what it does for its registry alone: Local, and Peer beside it. */
export class AgentClient extends PeerClient {
  /**
   * Asks the own agent who has a key. Holders come as they answer, the summary last.
   *
   * @throws AgentError, from the iteration
   */
  async *locate(
    key: LocateKey,
    limits: CallLimits & { readonly again?: SecondLook | undefined },
  ): AsyncGenerator<LocateEvent> {
    const what = 'digest' in key ? key.digest : key.name;
    const action = `Cannot locate ${what} through ${this.channel.name}`;
    const request = locateToMessage(key, limits.again);
    const options = { action, isBulk: false };
    const stream = this.channel.stream(localMethods.locate, request, limits, options);
    for await (const message of stream) {
      const event = locateFromMessage(message);
      if (event !== undefined) yield event;
    }
  }

  /**
   * Tells the own agent what the upstream has just confirmed.
   *
   * @throws AgentError
   */
  async observe(name: string, tag: TagStatement, limits: CallLimits): Promise<void> {
    await this.channel.unary(
      localMethods.observe,
      create(ObserveRequestSchema, { name, tag: tagToMessage(tag) }),
      limits,
      `Cannot record ${name}`,
    );
  }

  /**
   * Tells the own agent what a proof of a report's verdicts came to.
   *
   * @throws AgentError
   */
  async recordProof(proof: ProofSummary, limits: CallLimits): Promise<void> {
    const request = proofToMessage(proof);
    const action = 'Cannot record what the proof came to';
    await this.channel.unary(localMethods.recordProof, request, limits, action);
  }

  /**
   * Makes the own node throw away what it has received of a blob.
   *
   * @returns how many unfinished writes that were
   * @throws AgentError
   */
  async abortIngest(digest: Digest, limits: CallLimits): Promise<number> {
    const answer = await this.channel.unary(
      localMethods.abortIngest,
      create(AbortIngestRequestSchema, { digest }),
      limits,
      `Cannot abort the ingest of ${digest}`,
    );
    return answer.aborted;
  }

  /**
   * Tells the own agent that a blob of an image goes to this node, so that its layers stay.
   *
   * @param notice.images the images that it is a part of, the likeliest first; none: the agent
   *   looks for them
   * @returns how many references were missing and are there now
   * @throws AgentError
   */
  async keep(
    notice: { readonly digest: Digest; readonly images: readonly PassedImage[] },
    limits: CallLimits,
  ): Promise<number> {
    const images = notice.images.map(({ manifest, indexes }) => ({
      manifest,
      indexes: [...indexes],
    }));
    const answer = await this.channel.unary(
      localMethods.keep,
      create(KeepRequestSchema, { digest: notice.digest, images }),
      limits,
      `Cannot have the image of ${notice.digest} kept`,
    );
    return answer.restored;
  }

  /**
   * Opens the channel for signs of life.
   *
   * @param events.onBegin the agent has seen the process and watches it
   * @param events.onEnd it no longer does, or never did; called once
   *
   * @returns `beat` to send one, `end` to part in peace
   */
  watch(
    options: { readonly pid: number; readonly timeoutMs: number; readonly processStart: string },
    events: { readonly onBegin?: () => void; readonly onEnd: (error: AgentError) => void },
  ): { beat(): void; end(): void } {
    const call = this.channel.upload(localMethods.watch, (error) =>
      events.onEnd(AgentError.from(error ?? new Error('ended'), 'Cannot keep the watch')),
    );
    call.on('metadata', () => events.onBegin?.());
    const message = create(WatchRequestSchema, {
      pid: BigInt(options.pid),
      timeoutMs: BigInt(options.timeoutMs),
      processStart: options.processStart,
    });
    call.write(message);
    return { beat: () => void call.write(message), end: () => call.end() };
  }
}
