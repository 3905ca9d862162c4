import { describe, expect, test } from 'vitest';

import { CopyCount, type ListMember } from '../../../../src/agent/keeper/copy-count.ts';
import { CopyKnowledge } from '../../../../src/agent/keeper/copy-knowledge.ts';
import { CopyPolicy } from '../../../../src/agent/keeper/copy-policy.ts';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';
import type { HeldPart } from '../../../../src/rpc/agent-protocol.ts';
import { createLogger } from '../../../../src/telemetry/logger.ts';

const log = createLogger({ level: 'silent' });
const digest = (name: string): Digest => digestOf(Buffer.from(name));
const signal = new AbortController().signal;
const member = (name: string) => ({ name, address: `${name}:1` });
const target = digest('manifest');
const blobs = new Map([
  [target, 1],
  [digest('config'), 2],
  [digest('layer'), 3],
]);
const all = [...blobs].map(([each, sizeBytes]) => ({ digest: each, sizeBytes }));

function countOf(answers: Readonly<Record<string, readonly HeldPart[] | Error>>, maxAtOnce = 4) {
  const asked = { now: 0, most: 0, names: [] as string[] };
  const list: ListMember = async function* ({ name }) {
    asked.names.push(name);
    asked.now += 1;
    asked.most = Math.max(asked.most, asked.now);
    await Promise.resolve();
    try {
      const answer = answers[name] ?? [];
      if (answer instanceof Error) throw answer;
      yield* answer;
    } finally {
      asked.now -= 1;
    }
  };
  const members = ['self', ...Object.keys(answers)].map(member);
  const count = new CopyCount(
    { selfName: 'self', memberTimeoutMs: 100, maxAtOnce },
    { membership: { members: () => members }, list, log },
  );
  return { count, asked };
}

describe('CopyCount', () => {
  test('counts a copy where all blobs are there in full size, whole answers only', async () => {
    const { count } = countOf({
      named: [
        { blobs: all.slice(0, 2), named: [] },
        { blobs: all.slice(2), named: [target] },
      ],
      held: [{ blobs: all, named: [digest('another')] }],
      partial: [{ blobs: all.slice(0, 2), named: [target] }],
      wrong: [{ blobs: all.map((blob) => ({ ...blob, sizeBytes: 9 })), named: [target] }],
      dead: new Error('Cannot ask dead'),
    });
    const poll = await count.poll(new Map([[target, blobs]]), { signal });
    expect([poll.asked, poll.answered]).toEqual([5, 4]);
    expect(poll.holders.get(target)).toHaveLength(2);
    expect(poll.holders.get(target)).toEqual(
      expect.arrayContaining([
        { node: 'named', isNamed: true },
        { node: 'held', isNamed: false },
      ]),
    );
  });

  test('asks a bounded number at a time, itself never, and nobody when nothing is wanted', async () => {
    const names = Array.from({ length: 9 }, (_, index) => [`n${index}`, []] as const);
    const { count, asked } = countOf(Object.fromEntries(names), 2);
    await count.poll(new Map(), { signal });
    expect(asked.names).toEqual([]);
    await count.poll(new Map([[target, blobs]]), { signal });
    expect(asked.most).toBe(2);
    expect(asked.names).not.toContain('self');
    expect(asked.names).toHaveLength(count.others);
  });

  test('ends with the reason of its signal', async () => {
    const { count } = countOf({ a: [] });
    const ended = AbortSignal.abort(new Error('stopped'));
    await expect(count.poll(new Map([[target, blobs]]), { signal: ended })).rejects.toThrow(
      'stopped',
    );
  });
});

describe('CopyKnowledge', () => {
  const named = (node: string) => ({ node, isNamed: true });
  const poll = (...holders: { node: string; isNamed: boolean }[]) => ({
    ...{ asked: 2, answered: 2, holders: new Map([[target, holders]]) },
  });

  test('believes for a held copy only in copies that were there twice in a row', () => {
    const knowledge = new CopyKnowledge({ selfName: 'self' });
    expect(knowledge.ahead(target, { isHeld: true })).toBe(0);
    knowledge.add(poll(named('a'), named('b')));
    expect(knowledge.ahead(target, { isHeld: true })).toBe(0);
    knowledge.add(poll(named('a')));
    expect(knowledge.ahead(target, { isHeld: true })).toBe(1);
    knowledge.add(poll(named('a'), named('b')));
    expect(knowledge.ahead(target, { isHeld: true })).toBe(1);
    knowledge.add(poll(named('a'), named('b')));
    expect(knowledge.ahead(target, { isHeld: true })).toBe(2);
  });

  test('is blind when there are others and none has answered', () => {
    const knowledge = new CopyKnowledge({ selfName: 'self' });
    expect(knowledge.isBlind).toBe(false);
    knowledge.add({ asked: 2, answered: 0, holders: new Map() });
    expect(knowledge.isBlind).toBe(true);
    knowledge.add({ asked: 0, answered: 0, holders: new Map() });
    expect(knowledge.isBlind).toBe(false);
  });
});

describe('CopyPolicy', () => {
  const policies = [
    { match: 'docker.io/library/*', wanted: 3 },
    { match: 'registry.test/scratch/*', wanted: 0 },
    { match: 'registry.test/*', wanted: 1 },
  ];
  const policy = new CopyPolicy({ wanted: 2, policies });

  test.each([
    [['docker.io/library/nginx:1'], 3],
    [['registry.test/scratch/x:1'], 0],
    [['registry.test/other/x:1', 'registry.test/scratch/x:1'], 1],
    [[`registry.test/other/x@${target}`], 1],
    [['quay.io/a/b:1'], 2],
    [[], 2],
    [['made up by somebody!'], 2],
  ])('wants of %j the copies of the first rule that matches', (names, wanted) => {
    expect(policy.wantedOf(names)).toBe(wanted);
  });

  test('wants nothing only if no rule wants something', () => {
    expect(new CopyPolicy({ wanted: 0, policies: [] }).wantsNothing).toBe(true);
    expect(new CopyPolicy({ wanted: 0, policies }).wantsNothing).toBe(false);
    expect(policy.wantsNothing).toBe(false);
  });
});
