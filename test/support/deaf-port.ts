import { connect, type Socket } from 'node:net';
import { Program } from './process.ts';
import type { TestScope } from './test-scope.ts';

const maxFillers = 64;
// The kernel answers within microseconds on loopback, or never.
const answerTimeoutMs = 300;

// It listens with the shortest queue there is and stops itself before it accepts anything.
const listener = `
const server = require('node:net').createServer();
const port = Number(process.argv[1]);
server.listen({ host: '127.0.0.1', port, backlog: 1 }, () => {
  console.log('listening');
  setImmediate(() => process.kill(process.pid, 'SIGSTOP'));
});
`;

/**
 * Makes a loopback port a black hole until the scope ends: connections to it are neither accepted
 * nor refused, because the queue of a listener that accepts nothing is full. Linux then drops what
 * asks for a connection, as a firewall does.
 */
export async function startDeafPort(scope: TestScope, port: number): Promise<void> {
  const program = await Program.start(scope, {
    name: `deaf-port-${port}`,
    command: process.execPath,
    arguments: ['-e', listener, String(port)],
  });
  await program.waitForLine(/listening/);
  const fillers: Socket[] = [];
  scope.defer(() => {
    for (const filler of fillers) filler.destroy();
  });
  for (let count = 0; count < maxFillers; count += 1) {
    const filler = connect({ host: '127.0.0.1', port });
    fillers.push(filler);
    if (!(await isAccepted(filler))) return;
  }
  throw new Error(`Cannot fill the queue of port ${port}: it took ${maxFillers} connections`);
}

async function isAccepted(socket: Socket): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(false), answerTimeoutMs);
  socket.once('connect', () => resolve(true));
  // The listener ends before the sockets do.
  socket.on('error', () => resolve(false));
  return promise.finally(() => clearTimeout(timer));
}
