import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { ContainerdClient } from '../../../../src/agent/containerd/containerd-client.ts';
import { EventWatch } from '../../../../src/agent/containerd/event-watch.ts';
import { silentLogger } from '../../../../src/telemetry/logger.ts';
import { FakeClock } from '../../../support/fake-clock.ts';

describe('EventWatch', () => {
  test('tells of events, and of gaps whenever it had to begin anew', async () => {
    const clock = new FakeClock();
    let subscriptions = 0;
    const told: string[] = [];
    const events = async function* (
      topics: readonly string[],
      { signal }: { signal?: AbortSignal } = {},
    ) {
      expect(topics).toEqual(['/images/']);
      subscriptions += 1;
      if (subscriptions === 1) throw new Error('containerd is away');
      yield { topic: '/images/delete' };
      yield { topic: '/images/create' };
      await delay(60_000, undefined, { signal, ref: false });
    };
    const watch = new EventWatch(
      { topics: ['/images/'] },
      {
        client: { events: events as unknown as ContainerdClient['events'] },
        clock,
        log: silentLogger,
        onEvent: ({ topic }) => void told.push(topic),
        onGap: () => void told.push('gap'),
      },
    );
    watch.start();
    await clock.untilSleeping();
    expect(told).toEqual(['gap']);
    clock.advance(1000);
    await expect.poll(() => told).toEqual(['gap', '/images/delete', '/images/create']);
    await watch.stop();
    expect([subscriptions, clock.sleeping]).toEqual([2, 0]);
  });
});
