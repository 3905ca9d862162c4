import { expect, test } from 'vitest';
import { FirstAnswers } from '../../../src/registry/first-answers.ts';
import type { Upstream } from '../../../src/registry/upstream/upstream.ts';

interface FakeUpstream {
  hasAnswered: boolean;
  isUp: boolean;
  looks: number;
}

function scene(names: readonly string[]) {
  const known = new Map<string, FakeUpstream>();
  for (const name of ['a.test', 'b.test']) {
    known.set(name, { hasAnswered: false, isUp: false, looks: 0 });
  }
  const get = (name: string): Upstream | undefined => {
    const upstream = known.get(name);
    if (upstream === undefined) return undefined;
    const look = async (): Promise<boolean> => {
      upstream.looks += 1;
      return Promise.resolve(upstream.isUp);
    };
    return { hasAnswered: upstream.hasAnswered, look } as unknown as Upstream;
  };
  const a = known.get('a.test')!;
  const b = known.get('b.test')!;
  return { answers: new FirstAnswers({ names }, { upstreams: { get } }), a, b };
}

test('FirstAnswers names the registries that have not answered', async () => {
  const { answers, b } = scene(['a.test', 'b.test']);
  b.isUp = true;
  expect(await answers.check()).toBe('waiting for a first answer of a.test');
});

test('FirstAnswers is content for good once each has answered, though not at the same time', async () => {
  const { answers, a, b } = scene(['a.test', 'b.test']);
  a.isUp = true;
  await answers.check();
  Object.assign(a, { isUp: false });
  b.isUp = true;
  expect(await answers.check()).toBe(true);
  b.isUp = false;
  expect(await answers.check()).toBe(true);
  expect([a.looks, b.looks]).toEqual([1, 2]);
});

test('FirstAnswers does not look where a pull has had an answer already', async () => {
  const { answers, a } = scene(['a.test']);
  a.hasAnswered = true;
  expect(await answers.check()).toBe(true);
  expect(a.looks).toBe(0);
});

test('FirstAnswers does not wait for a registry that policy does not allow', async () => {
  const { answers } = scene(['other.test']);
  expect(await answers.check()).toBe(true);
});

test('FirstAnswers waits for what a changed configuration names, while it still waits', async () => {
  const { answers, b } = scene(['a.test']);
  expect(await answers.check()).not.toBe(true);
  answers.replace(['b.test']);
  b.isUp = true;
  expect(await answers.check()).toBe(true);
  answers.replace(['a.test']);
  expect(await answers.check()).toBe(true);
});
