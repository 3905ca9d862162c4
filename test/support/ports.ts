import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

// Below the range from which Linux takes the ports of outgoing connections, so that a port stays
// free while the program that uses it restarts.
const lowestPort = 20_000;
const highestPort = 32_000;
const maxAttempts = 100;
const given = new Set<number>();

/**
 * A loopback port on which nobody listens. This process never gets the same one twice.
 *
 * @throws when a hundred attempts in a row found none
 */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < maxAttempts; attempt += 1) {
    const port = randomInt(lowestPort, highestPort);
    if (given.has(port) || !(await canListen(port))) continue;
    given.add(port);
    return port;
  }
  throw new Error('Cannot find a free port');
}

async function canListen(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const server = createServer();
  server.once('error', () => resolve(false));
  server.listen({ host: '127.0.0.1', port }, () => server.close(() => resolve(true)));
  return promise;
}
