import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import { ConnectionPlaces } from './connection-places.ts';

/**
 * Bounds the connections of an HTTP server on which no request runs: those that have not sent one
 * whole, and those whose last one is answered. When there are too many, the oldest ends, so that a
 * program that holds connections keeps nobody else out.
 *
 * @param server that does not listen yet
 * @param options.max how many may wait
 */
export function limitWaiting(server: Server, options: { readonly max: number }): void {
  const places = new ConnectionPlaces({ max: options.max, gives: 'oldest' });
  const running = new WeakMap<Socket, number>();
  const wait = (socket: Socket): void => void places.take(socket)?.destroy();
  server.on('connection', (socket) => {
    wait(socket);
    socket.once('close', () => places.leave(socket));
  });
  server.on('request', ({ socket }, response) => {
    places.leave(socket);
    running.set(socket, (running.get(socket) ?? 0) + 1);
    response.once('close', () => {
      const rest = (running.get(socket) ?? 1) - 1;
      running.set(socket, rest);
      if (rest === 0 && !socket.destroyed) wait(socket);
    });
  });
}
