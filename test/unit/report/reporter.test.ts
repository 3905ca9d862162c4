import { Registry } from 'prom-client';
import { describe, expect, test } from 'vitest';
import { createReportMetrics } from '../../../src/report/report-metrics.ts';
import { Reporter } from '../../../src/report/reporter.ts';
import { AgentError } from '../../../src/rpc/agent-error.ts';
import type { NodeInventory } from '../../../src/rpc/inventory.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { indexOf, Node, NOW_MS, rules } from './report-scene.ts';

const name = 'registry.test/team/app:1';
const app = indexOf('app');
const whole = (node: string): NodeInventory =>
  new Node(node).image(name, app).observe(name, app).inventory();

function scene(
  answers: Record<string, (signal: AbortSignal) => Promise<NodeInventory>>,
  options: { maxAsked?: number; memberTimeoutMs?: number } = {},
) {
  const clock = new FakeClock(NOW_MS);
  const register = new Registry();
  const asked: string[] = [];
  const reporter = new Reporter(
    { maxAsked: 4, memberTimeoutMs: 10_000, ...options },
    {
      members: () => Object.keys(answers).map((member) => ({ name: member })),
      ask: (member, { signal }) => {
        asked.push(member.name);
        return answers[member.name]!(signal);
      },
      rules: () => rules(),
      metrics: createReportMetrics(register, () => clock.now()),
      clock,
      log: silentLogger,
    },
  );
  const metric = async (line: string): Promise<string | undefined> => {
    const lines = (await register.metrics()).split('\n');
    return lines.find((one) => one.startsWith(`${line} `))?.slice(line.length + 1);
  };
  return { reporter, clock, asked, metric };
}

const answering = (node: string) => async (): Promise<NodeInventory> => whole(node);

describe('Reporter', () => {
  test('Reporter puts together what all members say', async () => {
    const { reporter } = scene({ a: answering('a'), b: answering('calls itself something else') });
    const report = await reporter.current();
    expect(report).toMatchObject({ isComplete: true, summary: { survives: 1 } });
    expect(report.members).toMatchObject([
      { node: 'a', state: 'answered', images: 1, store: 'containerd' },
      { node: 'b', state: 'answered' },
    ]);
    expect(report.images[0]?.nodes.map(({ node }) => node)).toEqual(['a', 'b']);
  });

  test('Reporter names members that are too old and members that fail, and is incomplete then', async () => {
    const { reporter } = scene({
      a: answering('a'),
      b: () => Promise.reject(new AgentError('unimplemented', 'no such method')),
      c: () => Promise.reject(new AgentError('unavailable', 'connection refused')),
    });
    const report = await reporter.current();
    expect(report.isComplete).toBe(false);
    expect(report.members.map(({ node, state }) => [node, state])).toEqual([
      ['a', 'answered'],
      ['b', 'too-old'],
      ['c', 'no-answer'],
    ]);
    expect(report.members[2]?.error).toBe('connection refused');
    expect(report.summary.singleCopy).toBe(1);
  });

  test('Reporter waits for no member that ignores its deadline', async () => {
    const silent = (): Promise<NodeInventory> => new Promise(() => undefined);
    const { reporter } = scene({ a: answering('a'), b: silent }, { memberTimeoutMs: 20 });
    const report = await reporter.current();
    expect(report.members[1]).toMatchObject({ node: 'b', state: 'no-answer' });
    expect(report.members[1]?.error).toContain('no answer in 20 ms');
  });

  test('Reporter asks no more members at a time than it may, and tells how far it is', async () => {
    const open: (() => void)[] = [];
    const wait = (node: string) => async (): Promise<NodeInventory> => {
      await new Promise<void>((resolve) => open.push(resolve));
      return whole(node);
    };
    const { reporter, asked } = scene(
      { a: wait('a'), b: wait('b'), c: wait('c') },
      { maxAsked: 2 },
    );
    expect(reporter.progress).toEqual({ isRunning: false, answered: 0, members: 0 });
    const report = reporter.current();
    expect(asked).toEqual(['a', 'b']);
    expect(reporter.progress).toEqual({ isRunning: true, answered: 0, members: 3 });
    open.shift()?.();
    await expect.poll(() => asked).toEqual(['a', 'b', 'c']);
    expect(reporter.progress).toMatchObject({ isRunning: true, answered: 1 });
    for (const next of open) next();
    await report;
    expect(reporter.progress).toEqual({ isRunning: false, answered: 3, members: 3 });
  });

  test('Reporter makes one report for all who ask at a time, and another a second later', async () => {
    const { reporter, clock, asked } = scene({ a: answering('a') });
    const [first, second] = await Promise.all([reporter.current(), reporter.current()]);
    expect(second).toBe(first);
    expect(asked).toHaveLength(1);
    clock.advance(1000);
    await reporter.current();
    expect(asked).toHaveLength(2);
  });

  test('Reporter ends what is under way when it is stopped', async () => {
    const silent = (): Promise<NodeInventory> => new Promise(() => undefined);
    const { reporter } = scene({ a: silent });
    const report = reporter.current();
    reporter.stop();
    expect((await report).members[0]?.error).toContain('the agent stops');
  });

  test('Reporter leaves its last result in the metrics, with its age, and nothing before it', async () => {
    const down = (): Promise<NodeInventory> => Promise.reject(new AgentError('deadline', 'late'));
    const { reporter, clock, metric } = scene({ a: answering('a'), b: down });
    expect(await metric('salvor_report_servable_ratio')).toBeUndefined();
    expect(await metric('salvor_report_age_seconds')).toBeUndefined();
    await reporter.current();
    clock.advance(90_000);
    expect(await metric('salvor_report_images{verdict="single-copy"}')).toBe('1');
    expect(await metric('salvor_report_images{verdict="not-servable"}')).toBe('0');
    expect(await metric('salvor_report_members{state="no-answer"}')).toBe('1');
    expect(await metric('salvor_report_servable_ratio')).toBe('1');
    expect(await metric('salvor_report_complete')).toBe('0');
    expect(await metric('salvor_report_age_seconds')).toBe('90');
  });
});
