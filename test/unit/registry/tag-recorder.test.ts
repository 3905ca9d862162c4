import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { digestOf } from '../../../src/oci/digest.ts';
import { TagRecorder } from '../../../src/registry/tag-recorder.ts';
import { AgentError } from '../../../src/rpc/agent-error.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { FakeClock } from '../../support/fake-clock.ts';

type Call = PromiseWithResolvers<undefined> & { readonly said: string };

/** An agent that answers when the test says so, or at once. */
class TestAgent {
  readonly calls: Call[] = [];
  answer: 'late' | 'ok' | AgentError = 'ok';

  get said(): string[] {
    return this.calls.map(({ said }) => said);
  }

  async observe(name: string, { digest, observedAtMs }: { digest: string; observedAtMs?: number }) {
    const call = {
      ...Promise.withResolvers<undefined>(),
      said: `${name} ${digest} ${observedAtMs}`,
    };
    this.calls.push(call);
    if (this.answer === 'ok') call.resolve(undefined);
    else if (this.answer !== 'late') call.reject(this.answer);
    return call.promise;
  }
}

const unavailable = new AgentError('unavailable', 'gone');
const first = digestOf(Buffer.from('first'));
const second = digestOf(Buffer.from('second'));

let agent: TestAgent;
let clock: FakeClock;
let recorder: TagRecorder;
const logged: string[] = [];

function answer(digest: typeof first, confirmedAtMs: number) {
  return { digest, mediaType: 'a/b', sizeBytes: 1, confirmedAtMs };
}

async function isDone(promise: Promise<void>): Promise<boolean> {
  let done = false;
  void promise.then(() => (done = true));
  // Whatever is due is run in the turns of the event loop that follow.
  for (let turn = 0; turn < 3; turn += 1) await new Promise(setImmediate);
  return done;
}

beforeEach(() => {
  agent = new TestAgent();
  clock = new FakeClock();
  logged.length = 0;
  const note = (_: unknown, text?: string): void => void logged.push(text ?? '');
  recorder = new TagRecorder({ agent, clock, log: { ...silentLogger, warn: note, info: note } });
});

afterEach(() => recorder.close());

describe('TagRecorder', () => {
  test('returns when the agent has the statement, not before', async () => {
    agent.answer = 'late';
    const observed = recorder.observe('r/a:1', answer(first, 1));
    const joined = recorder.observe('r/a:1', answer(first, 1));
    expect([await isDone(observed), await isDone(joined)]).toEqual([false, false]);
    agent.calls[0]!.resolve(undefined);
    expect([await isDone(observed), await isDone(joined)]).toEqual([true, true]);
    expect(agent.said).toEqual([`r/a:1 ${first} 1`]);
    expect(clock.sleeping).toBe(0);
  });

  test('tells another digest at once, and the same again after a while', async () => {
    await recorder.observe('r/a:1', answer(first, 1));
    await recorder.observe('r/a:1', answer(first, 2));
    await recorder.observe('r/a:1', answer(second, 3));
    clock.advance(5001);
    await recorder.observe('r/a:1', answer(second, 4));
    expect(agent.said).toEqual([`r/a:1 ${first} 1`, `r/a:1 ${second} 3`, `r/a:1 ${second} 4`]);
  });

  test('does not wait for what the agent has, only newer; for what it has not, it does', async () => {
    await recorder.observe('r/a:1', answer(first, 1));
    agent.answer = 'late';
    clock.advance(5001);
    expect(await isDone(recorder.observe('r/a:1', answer(first, 2)))).toBe(true);
    expect(agent.said.at(-1)).toBe(`r/a:1 ${first} 2`);
    agent.calls.at(-1)!.reject(unavailable);
    await clock.untilSleeping();
    clock.advance(5001);
    expect(await isDone(recorder.observe('r/a:1', answer(first, 3)))).toBe(true);
    expect(await isDone(recorder.observe('r/a:1', answer(second, 4)))).toBe(false);
    for (const call of agent.calls) call.resolve(undefined);
  });

  test('holds up one answer for a moment when the agent is silent, and no others', async () => {
    agent.answer = 'late';
    const held = recorder.observe('r/a:1', answer(first, 1));
    clock.advance(249);
    expect(await isDone(held)).toBe(false);
    clock.advance(1);
    expect(await isDone(held)).toBe(true);
    expect(await isDone(recorder.observe('r/a:2', answer(first, 1)))).toBe(true);

    for (const call of agent.calls) call.resolve(undefined);
    await isDone(held);
    expect(await isDone(recorder.observe('r/a:3', answer(first, 1)))).toBe(false);
    agent.calls[2]!.resolve(undefined);
  });

  test('tells an agent that was away what it missed, the newest of each name', async () => {
    agent.answer = unavailable;
    await recorder.observe('r/a:1', answer(first, 1));
    await recorder.observe('r/a:1', answer(second, 2));
    await recorder.observe('r/a:2', answer(first, 3));
    agent.calls.length = 0;
    await clock.untilSleeping();
    clock.advance(1000);
    await clock.untilSleeping();
    expect(agent.said).toEqual([`r/a:1 ${second} 2`]);

    agent.answer = 'ok';
    agent.calls.length = 0;
    clock.advance(1000);
    await isDone(Promise.resolve());
    expect(agent.said).toEqual([`r/a:1 ${second} 2`, `r/a:2 ${first} 3`]);
    expect(clock.sleeping).toBe(0);
    expect(logged).toEqual([
      'the agent will be told later what tags name',
      'the agent was told what it had missed',
    ]);
  });

  test('does not repeat what the agent refuses', async () => {
    agent.answer = new AgentError('invalid', 'no name');
    await recorder.observe('r/a:1', answer(first, 1));
    expect(clock.sleeping).toBe(0);
    expect(logged).toEqual(['cannot record what a tag names']);
  });

  test('stops trying when it is closed', async () => {
    agent.answer = unavailable;
    await recorder.observe('r/a:1', answer(first, 1));
    await clock.untilSleeping();
    recorder.close();
    expect(clock.sleeping).toBe(0);
  });

  test('returns when a keeper has kept it too, and not for its failure', async () => {
    const kept = Promise.withResolvers<undefined>();
    const keeping = new TagRecorder({
      agent,
      clock,
      log: silentLogger,
      keeper: { manifest: async () => undefined, tag: () => kept.promise },
    });
    const observed = keeping.observe('r/a:1', answer(first, 1));
    expect(await isDone(observed)).toBe(false);
    kept.reject(new Error('full'));
    expect(await isDone(observed)).toBe(true);
  });
});
