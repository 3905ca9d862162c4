import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import type { DiskListener, DiskUsage } from '../../../../src/agent/disk-usage.ts';
import type { CopyHolder } from '../../../../src/agent/keeper/copy-choice.ts';
import type { CopyPoll, WantedCopies } from '../../../../src/agent/keeper/copy-count.ts';
import { GuardLeases } from '../../../../src/agent/keeper/guard-lease.ts';
import { GuardSet } from '../../../../src/agent/keeper/guard-set.ts';
import { createLastCopiesMetrics } from '../../../../src/agent/keeper/last-copies-metrics.ts';
import { LastCopies } from '../../../../src/agent/keeper/last-copies.ts';
import type { NodeImage } from '../../../../src/agent/keeper/node-images.ts';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';
import { createLogger } from '../../../../src/telemetry/logger.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { FakeLeases } from './fake-leases.ts';

const log = createLogger({ level: 'silent' });
const digest = (name: string): Digest => digestOf(Buffer.from(name));
const pollIntervalMs = 60_000;
const sizeBytes = 10_000;
const settings = {
  ...{ wanted: 2, policies: [{ match: 'registry.test/scratch/*', wanted: 0 }] },
  ...{ budgetBytes: 1000, budgetPercent: 5, releaseAtPercent: 75, dropAtPercent: 80 },
  pollIntervalMs,
};

/** A node of which all is fake but what is tested. */
class Scene {
  readonly clock = new FakeClock();
  readonly leases = new FakeLeases();
  readonly images = new Map<string, NodeImage>();
  readonly holders = new Map<Digest, CopyHolder[]>();
  readonly register = new Registry();
  readonly guards: GuardSet;
  readonly copies: LastCopies;
  membersAsked = 3;
  membersAnswering = 3;
  polls = 0;
  isAway = false;
  #listener: DiskListener | undefined;
  #usage: DiskUsage = { sizeBytes, availableBytes: sizeBytes };

  constructor(change: Partial<typeof settings> = {}) {
    const leases = new GuardLeases(
      { lifetimeMs: 6 * 3_600_000, maxGuards: 100 },
      { leases: this.leases.port, sizeOf: this.leases.sizeOf, clock: this.clock },
    );
    this.guards = new GuardSet({ leases });
    const usage = (): DiskUsage => this.#usage;
    this.copies = new LastCopies(
      { ...settings, ...change },
      {
        selfName: 'self',
        images: {
          list: async () => this.#unlessAway([...this.images.values()]),
          targets: async () =>
            this.#unlessAway(new Set([...this.images.values()].map(({ target }) => target))),
        },
        guards: this.guards,
        cluster: { others: 3, poll: (wanted) => this.#poll(wanted) },
        disk: {
          get latest() {
            return usage();
          },
          subscribe: (listener) => {
            this.#listener = listener;
            return () => undefined;
          },
        },
        clock: this.clock,
        log,
        metrics: createLastCopiesMetrics(this.register),
        random: () => 0.5,
      },
    );
  }

  /** The runtime pulls an image of so many bytes. */
  pull(name: string, bytes: number, change: Partial<NodeImage> = {}): Digest {
    const target = digest(name);
    this.leases.put(target, bytes);
    this.images.set(name, {
      ...{ target, names: [`registry.test/${name}:v1`], blobs: new Map([[target, bytes]]) },
      ...{ usedAtMs: this.clock.now(), isComplete: true, isInUse: false },
      ...change,
    });
    return target;
  }

  /** The runtime removes it, and garbage collection runs. */
  remove(name: string): void {
    this.images.delete(name);
    this.leases.recorded.delete(digest(name));
    this.leases.collect();
  }

  isOnDisk(name: string): boolean {
    return this.leases.disk.has(digest(name));
  }

  /** Others that have it under a name. */
  share(name: string, ...nodes: string[]): void {
    this.holders.set(
      digest(name),
      nodes.map((node) => ({ node, isNamed: true })),
    );
  }

  async start(): Promise<void> {
    this.copies.start();
    await this.clock.untilSleeping();
  }

  /** Lets time pass, a look at everything included. */
  async pass(durationMs: number): Promise<void> {
    const steps = Math.ceil(durationMs / 500);
    for (let step = 0; step < steps; step += 1) {
      this.clock.advance(500);
      await this.clock.untilSleeping();
    }
  }

  async look(): Promise<void> {
    this.copies.mark();
    await this.pass(11_000);
  }

  async disk(usedPercent: number): Promise<void> {
    this.#usage = { sizeBytes, availableBytes: sizeBytes * (1 - usedPercent / 100) };
    await this.#listener?.(this.#usage);
  }

  async metric(name: string): Promise<number | undefined> {
    const metric = await this.register.getSingleMetric(`salvor_agent_copies_${name}`)?.get();
    return metric?.values.reduce((sum, { value }) => sum + value, 0);
  }

  async #poll(wanted: WantedCopies): Promise<CopyPoll> {
    this.polls += 1;
    const isBlind = this.membersAnswering === 0;
    const known = [...wanted.keys()].map(
      (target) => [target, isBlind ? [] : (this.holders.get(target) ?? [])] as const,
    );
    const { membersAsked: asked, membersAnswering: answered } = this;
    return { asked, answered, holders: new Map(known) };
  }

  #unlessAway<T>(answer: T): T {
    if (this.isAway) throw new Error('Cannot list the images: containerd is away');
    return answer;
  }
}

let scene: Scene;

beforeEach(() => {
  scene = new Scene();
});

afterEach(async () => {
  await scene.copies.stop();
  expect(scene.clock.sleeping).toBe(0);
});

describe('LastCopies', () => {
  test('keeps an image that was removed while too few others have it', async () => {
    scene.pull('app', 100);
    scene.share('app', 'b');
    await scene.start();
    expect(await scene.metric('guarded_bytes')).toBe(100);
    expect(await scene.metric('held_bytes')).toBe(0);
    scene.remove('app');
    await scene.look();
    expect(scene.isOnDisk('app')).toBe(true);
    expect(await scene.metric('held_bytes')).toBe(100);
    expect(scene.copies.status()).toMatchObject({ heldImages: 1, held: [{ otherCopies: 1 }] });
  });

  test('does not keep what enough others have, what policy does not want, or what is not whole', async () => {
    scene.pull('shared', 10);
    // More than wanted: some of them come before this node in any order.
    scene.share('shared', ...Array.from({ length: 40 }, (_, index) => `n${index}`));
    scene.pull('scratch/app', 10);
    scene.pull('half', 10, { isComplete: false });
    await scene.start();
    for (const name of ['shared', 'scratch/app', 'half']) {
      scene.remove(name);
      expect(scene.isOnDisk(name), name).toBe(false);
    }
  });

  test('lets a held image go when enough others have had it for two polls', async () => {
    scene.pull('app', 100);
    await scene.start();
    scene.remove('app');
    scene.share('app', 'b', 'c');
    await scene.pass(pollIntervalMs + 11_000);
    expect(scene.isOnDisk('app')).toBe(true);
    await scene.pass(pollIntervalMs + 11_000);
    expect(scene.isOnDisk('app')).toBe(false);
    expect(await scene.metric('released_total')).toBe(1);
    expect(await scene.metric('held_bytes')).toBe(0);
  });

  test('lets nothing go for want of answers', async () => {
    scene.pull('app', 100);
    await scene.start();
    scene.remove('app');
    scene.share('app', 'b', 'c');
    scene.membersAnswering = 0;
    await scene.pass(5 * pollIntervalMs);
    expect(scene.isOnDisk('app')).toBe(true);
    expect(scene.polls).toBeGreaterThan(3);
  });

  test('keeps within the budget, of which the smaller counts', async () => {
    scene.pull('a', 300);
    scene.pull('b', 300);
    await scene.start();
    // 5 % of 10,000 bytes are less than 1,000.
    expect(await scene.metric('budget_bytes')).toBe(500);
    expect(await scene.metric('guarded_bytes')).toBe(300);
    scene.copies.apply({ ...settings, budgetPercent: 50 });
    await scene.look();
    expect(await scene.metric('guarded_bytes')).toBe(600);
    scene.remove('a');
    scene.remove('b');
    scene.copies.apply({ ...settings, budgetBytes: 300 });
    await scene.look();
    expect(await scene.metric('held_bytes')).toBe(300);
    expect([scene.isOnDisk('a'), scene.isOnDisk('b')].filter(Boolean)).toHaveLength(1);
  });

  test('lets held images go as the disk fills up, best replicated and oldest first', async () => {
    for (const name of ['alone', 'old', 'new', 'here']) {
      scene.pull(name, 100, { usedAtMs: scene.clock.now() + (name === 'new' ? 1 : 0) });
    }
    for (const name of ['old', 'new']) scene.share(name, 'b');
    await scene.start();
    for (const name of ['alone', 'old', 'new']) scene.remove(name);
    await scene.look();
    expect(await scene.metric('held_bytes')).toBe(300);
    const onDisk = (): string[] =>
      ['alone', 'old', 'new', 'here'].filter((name) => scene.isOnDisk(name));

    await scene.disk(74);
    expect(onDisk()).toHaveLength(4);
    // From 75 to 72 % are 300 bytes: two images are not enough, three are.
    await scene.disk(73);
    await scene.disk(75);
    expect(onDisk()).toEqual(['here']);
    expect(await scene.metric('guarded_bytes')).toBe(100);
  });

  test('makes no more space than it takes to get out of pressure', async () => {
    for (const name of ['a', 'b']) scene.pull(name, 400);
    scene.copies.apply({ ...settings, budgetPercent: 50 });
    scene.share('a', 'b');
    await scene.start();
    for (const name of ['a', 'b']) scene.remove(name);
    await scene.look();
    expect(await scene.metric('held_bytes')).toBe(800);
    await scene.disk(75.5);
    expect([scene.isOnDisk('a'), scene.isOnDisk('b')]).toEqual([false, true]);
    expect(scene.leases.calls.at(-1)).toMatch(/^delete .* sync$/);
  });

  test('drops everything at the upper threshold and begins again only well below the lower one', async () => {
    scene.pull('held', 100);
    scene.pull('here', 100);
    await scene.start();
    scene.remove('held');
    await scene.look();
    await scene.disk(80);
    expect([scene.leases.heldIds, scene.isOnDisk('held')]).toEqual([[], false]);
    expect(await scene.metric('guarded_bytes')).toBe(0);
    expect(await scene.metric('released_total')).toBe(1);

    await scene.look();
    await scene.disk(73);
    await scene.look();
    expect(scene.leases.heldIds).toEqual([]);
    await scene.disk(71);
    await scene.pass(11_000);
    expect(scene.leases.heldIds).toHaveLength(1);
  });

  test('guards nothing new once the disk has filled up in the middle of a look', async () => {
    for (const name of ['a', 'b', 'c']) scene.pull(name, 10);
    let full: Promise<void> | undefined;
    scene.leases.onCall = (call) => {
      if (call.startsWith('create')) full ??= scene.disk(90);
    };
    await scene.start();
    await full;
    expect(scene.leases.heldIds).toEqual([]);
    expect(scene.leases.calls.filter((call) => call.startsWith('create'))).toHaveLength(1);
  });

  test('takes over what an earlier process has kept', async () => {
    scene.pull('app', 100);
    await scene.start();
    scene.remove('app');
    await scene.copies.stop();
    const next = new Scene();
    for (const [id, lease] of scene.leases.leases) next.leases.leases.set(id, lease);
    for (const [blob, size] of scene.leases.disk) next.leases.disk.set(blob, size);
    await next.start();
    expect(await next.metric('held_bytes')).toBe(100);
    next.share('app', 'b', 'c');
    await next.pass(2 * pollIntervalMs + 11_000);
    expect(next.isOnDisk('app')).toBe(false);
    await next.copies.stop();
  });

  test('replaces leases for as long as it runs', async () => {
    scene.pull('app', 100);
    await scene.start();
    scene.remove('app');
    const [before] = scene.leases.heldIds;
    for (let hour = 0; hour < 4; hour += 1) {
      scene.clock.advance(3_600_000);
      await scene.clock.untilSleeping();
      await scene.pass(11_000);
    }
    expect(scene.isOnDisk('app')).toBe(true);
    expect(scene.leases.heldIds).toHaveLength(1);
    expect(scene.leases.heldIds).not.toContain(before);
  });

  test('looks at nothing where nothing is wanted, once it has let go of what there was', async () => {
    scene.pull('app', 100);
    await scene.start();
    expect(scene.leases.heldIds).toHaveLength(1);
    scene.copies.apply({ ...settings, wanted: 0, policies: [] });
    await scene.look();
    expect(scene.leases.heldIds).toEqual([]);
    scene.isAway = true;
    const { polls } = scene;
    await scene.pass(3 * pollIntervalMs);
    expect(scene.polls).toBe(polls);
    scene.isAway = false;
    scene.copies.apply(settings);
    await scene.look();
    expect(scene.leases.heldIds).toHaveLength(1);
  });

  test('changes nothing while the runtime is away, and goes on when it is back', async () => {
    scene.pull('app', 100);
    await scene.start();
    scene.isAway = true;
    await scene.look();
    expect(scene.leases.heldIds).toHaveLength(1);
    scene.pull('later', 100);
    scene.isAway = false;
    await scene.look();
    expect(scene.leases.heldIds).toHaveLength(2);
  });
});
