import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { Program } from './process.ts';
import type { TestScope } from './test-scope.ts';

// The queue takes two or three; that many more must be left waiting.
const fillerCount = 16;
const acceptedAtMost = 8;
// The kernel answers within microseconds on loopback, or never. This is for a busy test machine.
const settleMs = 1000;

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
  const fillers = Array.from({ length: fillerCount }, () => connect({ host: '127.0.0.1', port }));
  scope.defer(() => {
    for (const filler of fillers) filler.destroy();
  });
  let accepted = 0;
  for (const filler of fillers) {
    filler.once('connect', () => (accepted += 1));
    // The listener ends before the sockets do.
    filler.on('error', () => filler.destroy());
  }
  await delay(settleMs);
  if (accepted > acceptedAtMost) {
    throw new Error(`Cannot fill the queue of port ${port}: it took ${accepted} connections`);
  }
}
