import { describe, expect, test } from 'vitest';
import {
  runProof,
  type ProofProgress,
  type ProvenImage,
} from '../../../../src/cli/prove/proof-run.ts';
import type { SubjectProof } from '../../../../src/cli/prove/prover.ts';
import { digestOf } from '../../../../src/oci/digest.ts';
import { FakeClock } from '../../../support/fake-clock.ts';

const digest = digestOf(Buffer.from('an image'));
const other = digestOf(Buffer.from('another image'));
const never = new AbortController().signal;

function image(name: string, verdict: string): ProvenImage {
  return {
    image: `registry.test/team/${name}:v1`,
    platform: { os: 'linux', architecture: 'amd64' },
    platformName: 'linux/amd64',
    manifests: new Set([digest]),
    digest,
    verdict,
    isServable: verdict !== 'not-servable',
  };
}

const images = [image('a', 'survives'), image('b', 'not-servable'), image('c', 'single-copy')];
const good: SubjectProof = { isServable: true, digest };
const bad: SubjectProof = { isServable: false, reason: 'layer sha256:ab: nobody has it' };

function prover(proofs: Readonly<Record<string, SubjectProof | Error>>): {
  prove: (subject: { image: string }) => Promise<SubjectProof>;
  readBytes: number;
  readBlobs: number;
} {
  return {
    readBytes: 700,
    readBlobs: 7,
    prove: async (subject) => {
      const proof = proofs[subject.image.charAt('registry.test/team/'.length)] ?? bad;
      if (proof instanceof Error) throw proof;
      return proof;
    },
  };
}

describe('runProof', () => {
  test('runProof finds that verdicts and proofs agree', async () => {
    const seen: ProofProgress[] = [];
    const result = await runProof(
      images,
      { concurrency: 2, signal: never, onProgress: (progress) => seen.push(progress) },
      { prover: prover({ a: good, b: bad, c: good }), clock: new FakeClock() },
    );
    expect(result).toMatchObject({
      ...{ isComplete: true, images: 3, proven: 3, servable: 2, differences: 0 },
      ...{ blobs: 7, bytes: 700 },
    });
    expect(result.outcomes.map(({ image: name }) => name)).toEqual(images.map((one) => one.image));
    expect(seen.map(({ proven }) => proven)).toEqual([1, 2, 3]);
  });

  test('runProof names every difference', async () => {
    const result = await runProof(
      images,
      { concurrency: 1, signal: never },
      {
        prover: prover({ a: bad, b: good, c: { isServable: true, digest: other } }),
        clock: new FakeClock(),
      },
    );
    expect(result.differences).toBe(3);
    expect(result.outcomes.map(({ difference }) => difference)).toEqual([
      'the verdict is survives, but it cannot be pulled: layer sha256:ab: nobody has it',
      'the verdict is not-servable, but all of it can be pulled',
      `the report says that it names ${digest}, but a pull gets ${other}`,
    ]);
  });

  test('runProof says what was proven when it is stopped', async () => {
    const stop = new AbortController();
    const result = await runProof(
      images,
      { concurrency: 1, signal: stop.signal, onProgress: () => stop.abort() },
      { prover: prover({ a: good }), clock: new FakeClock() },
    );
    expect(result).toMatchObject({ isComplete: false, images: 3, proven: 1, servable: 1 });
  });

  test('runProof takes what is under way when it is stopped for unproven', async () => {
    const stop = new AbortController();
    const waiting = Promise.withResolvers<SubjectProof>();
    const running = runProof(
      images,
      { concurrency: 3, signal: stop.signal },
      {
        prover: { ...prover({}), prove: async () => waiting.promise },
        clock: new FakeClock(),
      },
    );
    stop.abort();
    waiting.reject(new Error('stopped'));
    expect(await running).toMatchObject({ isComplete: false, proven: 0, outcomes: [] });
  });

  test('runProof fails when the registry cannot be asked', async () => {
    const failure = new Error('Cannot ask the registry');
    const running = runProof(
      images,
      { concurrency: 2, signal: never },
      { prover: prover({ a: good, b: failure, c: good }), clock: new FakeClock() },
    );
    await expect(running).rejects.toBe(failure);
  });
});
