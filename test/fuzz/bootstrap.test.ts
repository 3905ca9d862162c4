import { connect as connectTcp } from 'node:net';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { waitFor } from '../support/wait.ts';
import { blobs, filled, identities, manifests, ns } from '../unit/agent/bootstrap/filled-scene.ts';
import { inTurns, throwAt } from './fuzz-node.ts';
import { http2Garbage, httpGarbage } from './garbage.ts';

expectNoLeaks();

const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31);

function samplesOf<T>(arbitrary: fc.Arbitrary<T>, count: number): T[] {
  return fc.sample(arbitrary, { numRuns: count, seed });
}

describe(`the bootstrap listener that gets garbage (FUZZ_SEED=${seed})`, () => {
  test('BootstrapServer answers any HTTP with a status that it means, or hangs up', async () => {
    await using node = await filled({ maxRequests: 32 });
    const { scene, image, ask } = node;
    const { client } = await identities();
    const statuses = new Set<number>();
    await inTurns(samplesOf(httpGarbage, 200), async (bytes) => {
      const answer = await throwAt(await scene.connect(client), bytes);
      const first = /^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1];
      if (answer !== '') expect(first, JSON.stringify(bytes.toString('latin1'))).toBeDefined();
      if (first !== undefined) statuses.add(Number(first));
    });
    const meant = [100, 200, 206, 400, 404, 405, 408, 411, 413, 414, 416, 417, 431, 503];
    for (const one of statuses) expect(meant).toContain(one);
    expect(statuses.size).toBeGreaterThan(1);
    // Neither TLS nor HTTP/1, and from somebody without a certificate.
    await inTurns(samplesOf(http2Garbage, 40), async (bytes) => {
      await throwAt(await scene.connect(client), bytes);
    });
    await inTurns(samplesOf(httpGarbage, 40), async (bytes) => {
      const answer = await throwAt(connectTcp({ host: '127.0.0.1', port: scene.port }), bytes);
      expect(answer).not.toContain('HTTP/');
    });
    expect((await ask(manifests('1.0') + ns)).status).toBe(200);
    expect((await ask(blobs(image.config.digest) + ns)).status).toBe(200);
    await waitFor(() => scene.store.openBlobs === 0, { what: 'the blobs to be closed' });
    expect(await scene.count('failed')).toBe(0);
  });
});
