import {
  status,
  type handleServerStreamingCall,
  type handleUnaryCall,
  type ServerUnaryCall,
  type ServerWritableStream,
} from '@grpc/grpc-js';
import type { Logger } from '../telemetry/logger.ts';
import type { AgentMetrics } from './agent-metrics.ts';
import { endInTime } from './call-limits.ts';
import { RpcFailure } from './rpc-failure.ts';

/** What every handler needs beside its own work. */
export interface HandlerContext {
  readonly log: Logger;
  readonly metrics: AgentMetrics;
}

/**
 * Makes a grpc-js handler of a function that returns the answer or throws.
 *
 * @param run its signal aborts when the caller has gone
 */
export function unaryHandler<I, O>(
  method: string,
  context: HandlerContext,
  run: (call: ServerUnaryCall<I, O>, signal: AbortSignal) => Promise<O>,
): handleUnaryCall<I, O> {
  return (call, callback) => {
    const signal = signalOf(call);
    void attempt(method, { ...context, signal }, () => run(call, signal)).then((outcome) => {
      if ('value' in outcome) callback(null, outcome.value);
      else callback(outcome.failure);
    });
  };
}

/**
 * Makes a grpc-js handler of a function that writes to the call and returns when all is written.
 *
 * @param run as in {@link unaryHandler}
 */
export function streamHandler<I, O>(
  method: string,
  context: HandlerContext,
  run: (call: ServerWritableStream<I, O>, signal: AbortSignal) => Promise<void>,
): handleServerStreamingCall<I, O> {
  return (call) => {
    const signal = signalOf(call);
    // A write to a stream that the caller has left is reported by the run, not thrown at nobody.
    call.on('error', () => undefined);
    void attempt(method, { ...context, signal }, () => run(call, signal)).then((outcome) => {
      if ('value' in outcome) call.end();
      else call.emit('error', outcome.failure);
      endInTime(call, 'value' in outcome ? 'answered' : 'failed');
    });
  };
}

/**
 * Does what a caller asked for, counts how it went, and logs what went wrong on this side.
 *
 * @param context.signal aborts when the caller has gone
 */
export async function attempt<T>(
  method: string,
  context: HandlerContext & { readonly signal: AbortSignal },
  run: () => Promise<T>,
): Promise<{ value: T } | { failure: RpcFailure }> {
  try {
    const value = await run();
    context.metrics.calls.inc({ method, code: 'OK' });
    return { value };
  } catch (error) {
    // Whatever breaks when the caller leaves breaks because it left.
    const failure = context.signal.aborted
      ? new RpcFailure(status.CANCELLED, 'the caller has gone', { cause: error })
      : RpcFailure.from(error);
    context.metrics.calls.inc({ method, code: status[failure.code] });
    if (failure.code === status.INTERNAL || failure.code === status.DATA_LOSS) {
      context.log.error({ method, err: failure.cause ?? failure }, 'call failed');
    } else {
      context.log.debug({ method, code: status[failure.code], err: failure }, 'call refused');
    }
    return { failure };
  }
}

function signalOf(call: {
  on(event: 'cancelled', listener: () => void): unknown;
  cancelled: boolean;
}): AbortSignal {
  const controller = new AbortController();
  call.on('cancelled', () => controller.abort());
  if (call.cancelled) controller.abort();
  return controller.signal;
}
