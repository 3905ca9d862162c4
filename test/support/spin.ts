import { once } from 'node:events';
import type { Program } from './process.ts';

/**
 * Makes a Node process turn in circles for ever: its event loop stands still while it burns CPU.
 * Goes through the inspector, which every Node process opens at SIGUSR1, so that no program needs
 * a hook for it.
 */
export async function spin(program: Program): Promise<void> {
  const mark = program.lineCount;
  await program.kill('SIGUSR1');
  const line = await program.waitForLine(/Debugger listening on ws:/, { from: mark });
  const url = /ws:\S+/.exec(line)?.[0];
  if (url === undefined) throw new Error(`Cannot find the inspector in: ${line}`);
  const socket = new WebSocket(url);
  await once(socket, 'open');
  socket.send(
    JSON.stringify({ id: 1, method: 'Runtime.evaluate', params: { expression: 'for (;;) {}' } }),
  );
  socket.addEventListener('error', () => undefined);
}
