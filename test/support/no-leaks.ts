import { afterAll, beforeAll, expect } from 'vitest';
import { waitFor } from './wait.ts';

const watchedKinds = ['TCPServerWrap', 'TCPSocketWrap', 'TLSWrap', 'PipeWrap', 'PipeServerWrap'];

/** Fails the file in which it is called if its tests leave sockets or listeners open. */
export function expectNoLeaks(): void {
  let before: Record<string, number> = {};
  beforeAll(() => {
    before = openHandles();
  });
  afterAll(async () => {
    // What was closed a moment ago takes a turn of the event loop to go.
    const settled = await waitFor(() => same(openHandles(), before), { timeoutMs: 3000 }).catch(
      () => false,
    );
    if (!settled) expect(openHandles(), 'sockets left open').toEqual(before);
  });
}

function openHandles(): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) {
    if (watchedKinds.includes(kind)) counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}

function same(a: Record<string, number>, b: Record<string, number>): boolean {
  return watchedKinds.every((kind) => (a[kind] ?? 0) <= (b[kind] ?? 0));
}
