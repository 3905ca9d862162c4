import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { Registry } from 'prom-client';
import { describe, expect, onTestFinished, test } from 'vitest';

import { PullCount } from '../../../../src/agent/pulls/pull-count.ts';
import { createPullMetrics } from '../../../../src/agent/pulls/pull-metrics.ts';
import type { RegistryMemory } from '../../../../src/agent/pulls/registry-log.ts';
import { InfoSchema } from '../../../../src/rpc/gen/containerd/services/content/v1/content_pb.ts';
import { ImageSchema } from '../../../../src/rpc/gen/containerd/services/images/v1/images_pb.ts';
import { FakeClock } from '../../../support/fake-clock.ts';

const digest = `sha256:${'ab'.repeat(32)}`;
const name = 'registry.test:5000/team/app:1';
const managed = { 'io.cri-containerd.image': 'managed' };
const pulled = { 'containerd.io/distribution.source.registry.test': 'other/app,team/app' };
const minuteMs = 60_000;

interface Situation {
  /** Of the manifest. */
  readonly labels?: Readonly<Record<string, string>>;
  readonly ageMs?: number;
  /** What the registry answers; undefined: it does not. */
  readonly memory?: Omit<RegistryMemory, 'sinceMs'> & { readonly upMs: number };
  /** The registry answers where containerd asks it. */
  readonly isThere?: boolean;
  readonly digestOf?: (name: string) => string;
  readonly events?: readonly { name: string; labels: Readonly<Record<string, string>> }[];
}

async function count(situation: Situation) {
  const { labels = pulled, ageMs = 1000, events = [{ name, labels: managed }] } = situation;
  const clock = new FakeClock();
  const startMs = clock.now();
  const warned: string[] = [];
  const metrics = createPullMetrics(new Registry());
  const pulls = new PullCount({
    client: {
      image: async (of) => {
        const target = { digest: situation.digestOf?.(of) ?? digest };
        return create(ImageSchema, { name: of, target });
      },
      info: async () =>
        create(InfoSchema, { digest, labels, createdAt: timestampFromMs(startMs - ageMs) }),
    },
    askRegistry: async () => {
      if (situation.memory === undefined) throw new Error('refused');
      const { isKnown, upMs } = situation.memory;
      return { isKnown, sinceMs: startMs - upMs };
    },
    isRegistryThere: async () => situation.isThere === true,
    metrics,
    clock,
    log: { debug: () => undefined, warn: (about: object) => warned.push(JSON.stringify(about)) },
  });
  onTestFinished(() => pulls.stop());
  for (const event of events) pulls.noteImage(event);
  for (let step = 0; step < 10; step += 1) {
    await new Promise(setImmediate);
    clock.advance(5000);
  }
  await new Promise(setImmediate);
  const valueOf = async (metric: typeof metrics.seen) => (await metric.get()).values[0]?.value;
  return {
    seen: await valueOf(metrics.seen),
    bypassed: await valueOf(metrics.bypassed),
    unknown: await valueOf(metrics.unknown),
    summary: pulls.summary(),
    later: () => {
      clock.advance(61 * minuteMs);
      return pulls.summary();
    },
    warned,
  };
}

describe('PullCount', () => {
  test('PullCount counts a pull that the registry saw', async () => {
    const { seen, bypassed, summary, warned } = await count({
      memory: { isKnown: true, upMs: minuteMs },
    });
    expect([seen, bypassed]).toEqual([1, 0]);
    expect(summary).toEqual({ seen: 1, bypassed: 0, unknown: 0, examples: [] });
    expect(warned).toEqual([]);
  });

  test('PullCount counts a pull that the registry did not see, and says which', async () => {
    const { seen, bypassed, summary, warned, later } = await count({
      memory: { isKnown: false, upMs: minuteMs },
    });
    expect([seen, bypassed]).toEqual([0, 1]);
    expect(summary.examples[0]).toMatchObject({
      image: name,
      reason: expect.stringContaining('images of registry.test:5000') as string,
    });
    expect(warned).toHaveLength(1);
    expect(later()).toEqual({ seen: 0, bypassed: 0, unknown: 0, examples: [] });
  });

  test('PullCount takes a registry that stays away for one that was bypassed', async () => {
    const { bypassed, summary } = await count({});
    expect(bypassed).toBe(1);
    expect(summary.examples[0]?.reason).toContain('does not run');
  });

  test('PullCount does not know of a pull while only the admin port is away, and says so once', async () => {
    const names = ['registry.test:5000/team/app:1', 'registry.test:5000/other/app:1'];
    const events = names.map((each) => ({ name: each, labels: managed }));
    const { seen, bypassed, unknown, summary, warned } = await count({
      isThere: true,
      events,
      digestOf: (of) => `sha256:${names.indexOf(of).toString().repeat(64)}`,
    });
    expect([seen, bypassed, unknown]).toEqual([0, 0, 2]);
    expect(summary).toEqual({ seen: 0, bypassed: 0, unknown: 2, examples: [] });
    expect(warned).toHaveLength(1);
  });

  test('PullCount counts one pull once, whatever names it gives', async () => {
    const events = [name, `registry.test:5000/team/app@${digest}`, digest].map((each) => ({
      name: each,
      labels: managed,
    }));
    const { seen } = await count({ events, memory: { isKnown: true, upMs: minuteMs } });
    expect(seen).toBe(1);
  });

  test.each([
    ['an import', { labels: {} }],
    [
      'a new name in another repository',
      { labels: { 'containerd.io/distribution.source.registry.test': 'other/app' } },
    ],
    ['a name for what was there', { ageMs: 61 * minuteMs }],
    ['a client that is not CRI', { events: [{ name, labels: {} }] }],
    ['an image id', { events: [{ name: digest, labels: managed }] }],
    ['a pull from before the registry', { memory: { isKnown: false, upMs: 500 } }],
  ] as const)('PullCount leaves out %s', async (_, situation: Situation) => {
    const memory = { isKnown: false, upMs: minuteMs };
    const { seen, bypassed } = await count({ memory, ...situation });
    expect([seen, bypassed]).toEqual([0, 0]);
  });
});
