import type { Server } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Server as GrpcServer } from '@grpc/grpc-js';

/** A listener, over TLS or not. */
export type TlsListener = Server & {
  on(event: 'secureConnection', listener: (socket: TLSSocket) => void): unknown;
  on(
    event: 'tlsClientError',
    listener: (error: NodeJS.ErrnoException, socket: TLSSocket) => void,
  ): unknown;
};

/**
 * The listeners of a grpc-js server, which it keeps to itself.
 *
 * @throws when it has none, or keeps them elsewhere than the version that this was written for:
 *   without them its connections would have no limit
 */
export function listenersOf(server: GrpcServer): readonly TlsListener[] {
  const { http2Servers } = server as unknown as { http2Servers?: Map<TlsListener, unknown> };
  const listeners = [...(http2Servers?.keys() ?? [])];
  if (listeners.length === 0) throw new Error('Cannot limit connections: no listener of grpc-js');
  return listeners;
}
