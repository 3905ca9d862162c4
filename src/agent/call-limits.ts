import { constants, type ServerHttp2Stream } from 'node:http2';
import {
  ResponderBuilder,
  ServerInterceptingCall,
  ServerListenerBuilder,
  status,
  type Metadata,
  type ServerInterceptor,
} from '@grpc/grpc-js';
import { HostShare, hostOf } from './host-share.ts';

export interface CallLimitOptions {
  /** Calls under way of everybody together. A host may have half of them. */
  readonly maxCalls: number;
  /** From the beginning of a call until its request is there, milliseconds. */
  readonly requestMs: number;
  /** For the caller to take the end of an answer that failed, milliseconds. */
  readonly failureMs: number;
  /** The same of an answer that did not. */
  readonly answerMs: number;
}

type Outcome = 'answered' | 'failed';

/** Of each call that is under way, by what it shares with its handler. */
const endings = new WeakMap<Metadata, (outcome: Outcome) => void>();

/**
 * Says that a handler is through with a stream: what its caller does not take of it in time is
 * thrown away. grpc-js would wait for it without end, and send no status before.
 */
export function endInTime(call: { readonly metadata: Metadata }, outcome: Outcome): void {
  endings.get(call.metadata)?.(outcome);
}

/**
 * Bounds the calls of a server before they reach a handler, over all connections: HTTP/2 bounds the
 * streams of a single one. A stream on which no request comes, or whose end nobody takes, would
 * stay for ever, with what is buffered for it.
 */
export function callLimits(options: CallLimitOptions): ServerInterceptor {
  const { maxCalls, requestMs } = options;
  const share = new HostShare({ max: maxCalls, maxPerHost: Math.ceil(maxCalls / 2) });
  return (method, call) => {
    const stream = streamOf(call);
    let timer: NodeJS.Timeout | undefined;
    const closeAfter = (ms: number): void => {
      clearTimeout(timer);
      timer = setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), ms);
    };
    const endWithin = (outcome: Outcome): void => {
      if (stream.closed) return;
      closeAfter(outcome === 'answered' ? options.answerMs : options.failureMs);
    };
    const listener = new ServerListenerBuilder()
      .withOnReceiveMetadata((metadata, next) => {
        endings.set(metadata, endWithin);
        next(metadata);
      })
      .withOnReceiveMessage((message, next) => {
        // Where more of them may come, the first is the request.
        if (method.requestStream) clearTimeout(timer);
        next(message);
      })
      .withOnReceiveHalfClose((next) => {
        clearTimeout(timer);
        next();
      })
      .build();
    const responder = new ResponderBuilder()
      .withStart((next) => {
        const host = hostOf(call);
        const end = share.take(host);
        stream.once('close', () => {
          clearTimeout(timer);
          end?.();
        });
        if (end === undefined) {
          const details = `too many calls at once, most of them from ${host}`;
          call.sendStatus({ code: status.RESOURCE_EXHAUSTED, details });
          closeAfter(options.failureMs);
          return;
        }
        timer = setTimeout(() => {
          call.sendStatus({
            code: status.DEADLINE_EXCEEDED,
            details: `no request within ${requestMs} ms`,
          });
          closeAfter(options.failureMs);
        }, requestMs);
        next(listener);
      })
      .withSendStatus((sent, next) => {
        next(sent);
        endWithin(sent.code === status.OK ? 'answered' : 'failed');
      })
      .build();
    return new ServerInterceptingCall(call, responder);
  };
}

/** @throws when grpc-js keeps it elsewhere than the version that this was written for */
function streamOf(call: object): ServerHttp2Stream {
  const { stream } = call as { stream?: ServerHttp2Stream };
  if (stream === undefined) throw new Error('Cannot limit calls: no stream of grpc-js');
  return stream;
}
