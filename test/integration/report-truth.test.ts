import { beforeAll, describe, expect, test } from 'vitest';
import { ProofClient } from '../../src/cli/prove/proof-client.ts';
import { Prover } from '../../src/cli/prove/prover.ts';
import { systemClock } from '../../src/telemetry/clock.ts';
import type { Image } from '../support/image.ts';
import { hostPlatform } from '../support/image.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';
import { truthCases, childOf, type TruthCase } from './report-truth/truth-cases.ts';
import { TruthScene } from './report-truth/truth-scene.ts';

const scope = suiteScope('report-truth');

let scene: TruthScene;
const images = new Map<string, Image>();
const truth: Record<string, string> = {};

function referenceOf({ isSilentHost, name }: TruthCase): string {
  return scene.reference(name, isSilentHost === true ? scene.silentHost : undefined);
}

beforeAll(async () => {
  scene = await TruthScene.start(scope());
  for (const { bring, build, name } of truthCases) {
    const image = await build(scene);
    images.set(name, image);
    await bring(scene, image).catch((error: unknown) => {
      throw new Error(`Cannot bring ${name} onto its nodes`, { cause: error });
    });
  }
  for (const { letGo, name } of truthCases) await letGo?.(scene, images.get(name)!);
  await waitFor(async () => (await scene.corruptBlobs('one')) >= 2, { timeoutMs: 30_000 });
  await scene.upstream.kill('SIGKILL');
  for (const { collected, name } of truthCases) {
    const digest = collected?.(images.get(name)!);
    if (digest !== undefined)
      expect(await scene.node('one').containerd.blobs(), name).toContain(digest);
  }
  await scene.collectGarbage('one');
}, 240_000);

describe('a report', () => {
  test('x', async () => {
    const client = new ProofClient({
      socketPath: scene.node('one').proveSocket,
      stepTimeoutMs: 20_000,
      maxSockets: 4,
    });
    const prover = new Prover(
      { attempts: 1 },
      { client, pace: { take: async () => undefined }, clock: systemClock },
    );
    const proofs: Record<string, string> = {};
    for (const one of truthCases) {
      const proof = await prover.prove(
        { image: referenceOf(one), platform: hostPlatform, manifests: new Set(), isServable: true },
        AbortSignal.timeout(60_000),
      );
      proofs[one.name] = `${proof.isServable} ${proof.reason ?? ''}`;
    }
    console.log(proofs);
    for (const one of truthCases) {
      truth[one.name] = await scene
        .node('empty')
        .containerd.pull(referenceOf(one))
        .then(
          () => 'true',
          (error: Error) => `false ${error.message}`,
        );
    }
    console.log(truth);
    client.close();
    console.log(
      await Promise.all(
        truthCases.map(async ({ name }) => [
          name,
          await scene.predictions(images.get(name)!),
          childOf(images.get(name)!).digest,
        ]),
      ),
    );
    for (const { isServable, name } of truthCases)
      expect
        .soft([name, truth[name]!.startsWith('true'), proofs[name]!.startsWith('true')])
        .toEqual([name, isServable, isServable]);
  }, 200_000);
});
