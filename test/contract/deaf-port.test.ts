import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { startDeafPort } from '../support/deaf-port.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { freePort } from '../support/ports.ts';
import { withScope } from '../support/test-scope.ts';

expectNoLeaks();

test('startDeafPort neither accepts nor refuses, until its scope ends', async () => {
  const port = await freePort();
  await withScope('deaf-port', async (scope) => {
    await startDeafPort(scope, port);
    const sockets = Array.from({ length: 5 }, () => connect({ host: '127.0.0.1', port }));
    const answers = sockets.map((socket) =>
      Promise.race([
        once(socket, 'connect').then(
          () => 'accepted',
          () => 'refused',
        ),
        delay(1500, 'silence'),
      ]),
    );
    expect(new Set(await Promise.all(answers))).toEqual(new Set(['silence']));
    for (const socket of sockets) socket.destroy();
  });
  const late = connect({ host: '127.0.0.1', port });
  await expect(once(late, 'connect')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
});
