import { connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { freePort } from './ports.ts';
import { Program } from './process.ts';
import type { TestScope } from './test-scope.ts';

const fillTimeoutMs = 400;
const maxFillers = 16;
const listenerCode = `
  require('node:net')
    .createServer(() => undefined)
    .listen({ host: '127.0.0.1', port: Number(process.argv[1]), backlog: 1 }, () => console.log('listens'));
`;

/**
 * A loopback port that swallows connection attempts: nobody answers them, not even with a refusal.
 * It is a listener that was stopped and whose queue is full, so the kernel drops what comes.
 *
 * @returns the port; it lasts as long as the scope
 * @throws when the queue cannot be filled
 */
export async function startBlackHole(scope: TestScope): Promise<number> {
  const port = await freePort();
  const listener = await Program.start(scope, {
    name: `black-hole-${port}`,
    command: process.execPath,
    arguments: ['-e', listenerCode, String(port)],
  });
  await listener.waitForLine(/listens/);
  await listener.kill('SIGSTOP');
  const fillers: Socket[] = [];
  scope.defer(() => {
    for (const filler of fillers) filler.destroy();
  });
  for (let count = 0; count < maxFillers; count += 1) {
    const filler = connect({ host: '127.0.0.1', port });
    filler.on('error', () => filler.destroy());
    fillers.push(filler);
    const signal = AbortSignal.timeout(fillTimeoutMs);
    const isIn = await once(filler, 'connect', { signal }).then(
      () => true,
      () => false,
    );
    if (!isIn) return port;
  }
  throw new Error(`Cannot make port ${port} a black hole: it still accepts connections`);
}
