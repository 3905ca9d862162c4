import { describe, expect, test } from 'vitest';
import { Prover, type ProofSubject } from '../../../../src/cli/prove/prover.ts';
import { MEDIA_TYPE } from '../../../../src/oci/media-type.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { FakeRegistry } from './fake-registry.ts';

const platform = { os: 'linux', architecture: 'amd64' };
const never = new AbortController().signal;

function subject(options: Partial<ProofSubject> = {}): ProofSubject {
  const image = 'registry.test/team/app:v1';
  return { image, platform, manifests: new Set(), isServable: true, ...options };
}

function make(attempts = 1): {
  prover: Prover;
  registry: FakeRegistry;
  clock: FakeClock;
  paid: number[];
} {
  const registry = new FakeRegistry();
  const clock = new FakeClock();
  const paid: number[] = [];
  const pace = { take: async (bytes: number) => void paid.push(bytes) };
  return {
    prover: new Prover({ attempts }, { client: registry, pace, clock }),
    registry,
    clock,
    paid,
  };
}

const layers = [Buffer.from('the first layer'), Buffer.from('the second layer')] as const;

describe('Prover', () => {
  test('Prover asks for all that a node needs, in the order of a pull', async () => {
    const { paid, prover, registry } = make();
    const there = registry.addImage(Buffer.from('another platform'));
    const here = registry.addImage(...layers);
    const mediaType = MEDIA_TYPE.ociIndex;
    const manifests = [
      { ...there, platform: { os: 'linux', architecture: 'arm64' } },
      { ...here, platform },
    ];
    const index = registry.add({ schemaVersion: 2, mediaType, manifests }, mediaType);
    registry.tag('v1', index);

    const proof = await prover.prove(subject(), never);
    expect(proof).toEqual({ isServable: true, digest: index.digest });
    const [head, ...gets] = registry.asked;
    expect(head).toBe('HEAD manifests/v1');
    expect(gets.map((asked) => asked.split('/')[0])).toEqual([
      ...['GET manifests', 'GET manifests', 'GET blobs', 'GET blobs', 'GET blobs'],
    ]);
    expect(gets.slice(0, 2)).toEqual([
      `GET manifests/${index.digest}`,
      `GET manifests/${here.digest}`,
    ]);
    expect([...registry.platforms]).toEqual(['linux/amd64']);
    expect(paid.reduce((sum, bytes) => sum + bytes, 0)).toBe(prover.readBytes);
    expect([prover.readBlobs, registry.cancelled]).toEqual([3, 5]);
  });

  test('Prover takes the entry of an index that the report went by', async () => {
    const { prover, registry } = make();
    const old = registry.addImage(Buffer.from('for arm v6'));
    const young = registry.addImage(Buffer.from('for arm v7'));
    const mediaType = MEDIA_TYPE.ociIndex;
    const on = (variant: string) => ({ os: 'linux', architecture: 'arm', variant });
    const manifests = [
      { ...old, platform: on('v6') },
      { ...young, platform: on('v7') },
    ];
    registry.tag('v1', registry.add({ schemaVersion: 2, mediaType, manifests }, mediaType));
    registry.remove(old.digest);
    const by = new Set([young.digest]);
    const proof = await prover.prove(subject({ platform: on('v7'), manifests: by }), never);
    expect(proof.isServable).toBe(true);
  });

  test.each([
    [
      'is missing',
      (registry: FakeRegistry, digest: string) => registry.remove(digest),
      'nobody has it',
    ],
    [
      'is wrong',
      (registry: FakeRegistry, digest: string) =>
        void registry.sends.set(digest, Buffer.from('THE SECOND LAYER')),
      'has bytes that its digest does not name',
    ],
    [
      'ends early',
      (registry: FakeRegistry, digest: string) =>
        void registry.sends.set(digest, Buffer.from('the')),
      'ended after 3 of 16 bytes',
    ],
  ])('Prover says which layer %s', async (_, spoil, reason) => {
    const { prover, registry } = make();
    registry.tag('v1', registry.addImage(...layers));
    const { digest } = registry.add(layers[1]);
    spoil(registry, digest);
    const proof = await prover.prove(subject(), never);
    expect(proof).toMatchObject({ isServable: false, reason: `layer ${digest}: ${reason}` });
  });

  test('Prover says when a layer has another size than the manifest says', async () => {
    const { prover, registry } = make();
    const mediaType = MEDIA_TYPE.ociManifest;
    const layer = { ...registry.add(layers[0]), size: 4 };
    registry.tag('v1', registry.add({ schemaVersion: 2, mediaType, layers: [layer] }, mediaType));
    const proof = await prover.prove(subject(), never);
    expect(proof.reason).toBe(`layer ${layer.digest}: has 15 bytes instead of 4`);
    expect([prover.readBlobs, registry.cancelled]).toEqual([0, 2]);
  });

  test('Prover says that an index has nothing for a platform', async () => {
    const { prover, registry } = make();
    const mediaType = MEDIA_TYPE.ociIndex;
    const entry = {
      ...registry.addImage(layers[0]),
      platform: { os: 'linux', architecture: 's390x' },
    };
    const index = registry.add({ schemaVersion: 2, mediaType, manifests: [entry] }, mediaType);
    registry.tag('v1', index);
    const proof = await prover.prove(subject(), never);
    expect(proof.reason).toBe(`index ${index.digest}: nothing for this platform`);
  });

  test('Prover proves images by digest, and no name that cannot be pulled', async () => {
    const { prover, registry } = make();
    const { digest } = registry.addImage(layers[0]);
    const pinned = subject({ image: `registry.test/team/app@${digest}` });
    expect(await prover.prove(pinned, never)).toEqual({ isServable: true, digest });
    expect(registry.asked[0]).toBe(`HEAD manifests/${digest}`);
    const odd = await prover.prove(subject({ image: 'Not A Name' }), never);
    expect(odd.isServable).toBe(false);
    expect(odd.reason).toMatch(/^no name for a pull: /);
  });

  test('Prover reads what images share once, missing or not', async () => {
    const { prover, registry } = make();
    registry.tag('v1', registry.addImage(layers[0], Buffer.from('one')));
    registry.tag('v2', registry.addImage(layers[0], layers[1]));
    registry.tag('v3', registry.addImage(layers[1], Buffer.from('three')));
    const missing = registry.add(layers[1]).digest;
    registry.remove(missing);
    const servable: boolean[] = [];
    for (const tag of ['v1', 'v2', 'v3']) {
      const image = `registry.test/team/app:${tag}`;
      servable.push((await prover.prove(subject({ image }), never)).isServable);
    }
    expect(servable).toEqual([true, false, false]);
    const blobs = registry.asked.filter((asked) => asked.startsWith('GET blobs/'));
    expect(new Set(blobs).size).toBe(blobs.length);
    expect(blobs).toContain(`GET blobs/${missing}`);
  });

  test('Prover reads what two workers need at the same time once', async () => {
    const { prover, registry } = make();
    registry.tag('v1', registry.addImage(...layers));
    await Promise.all([prover.prove(subject(), never), prover.prove(subject(), never)]);
    const blobs = registry.asked.filter((asked) => asked.startsWith('GET blobs/'));
    expect(new Set(blobs).size).toBe(blobs.length);
  });

  test('Prover tries again what the verdict says is there', async () => {
    const { clock, prover, registry } = make(3);
    registry.tag('v1', registry.addImage(...layers));
    const { digest } = registry.add(layers[0]);
    registry.absences.set(digest, 2);
    const proving = prover.prove(subject(), never);
    for (let failed = 1; failed <= 2; failed += 1) {
      await clock.untilSleeping();
      clock.advance(500);
    }
    expect((await proving).isServable).toBe(true);
    const tries = registry.asked.filter((asked) => asked === `GET blobs/${digest}`);
    expect(tries.length).toBe(3);
  });

  test('Prover tries once what the verdict says is not there', async () => {
    const { prover, registry } = make(3);
    expect((await prover.prove(subject({ isServable: false }), never)).isServable).toBe(false);
    expect(registry.asked).toEqual(['HEAD manifests/v1']);
  });

  test('Prover ends at once when it is told to', async () => {
    const { prover, registry } = make(3);
    const stop = new AbortController();
    const reason = new Error('stopped');
    const proving = prover.prove(subject(), stop.signal);
    stop.abort(reason);
    await expect(proving).rejects.toBe(reason);
    expect(registry.asked.length).toBe(1);
  });
});
