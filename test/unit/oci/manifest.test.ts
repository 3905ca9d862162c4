import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import {
  goArchitecture,
  MAX_MANIFEST_CHILDREN,
  MAX_MANIFEST_SIZE_BYTES,
  parseManifest,
  platformMatches,
} from '../../../src/oci/manifest.ts';
import { MEDIA_TYPE } from '../../../src/oci/media-type.ts';
import { digestLike, valueOf } from './arbitraries.ts';

const CONFIG = { mediaType: MEDIA_TYPE.ociConfig, digest: digestLike('c'), size: 10 };
const LAYER = { mediaType: 'application/x-layer', digest: digestLike('1'), size: 20 };
const CHILD = {
  mediaType: MEDIA_TYPE.ociManifest,
  digest: digestLike('2'),
  size: 30,
  platform: { os: 'linux', architecture: 'amd64' },
};
const IMAGE = { schemaVersion: 2, config: CONFIG, layers: [LAYER] };
const INDEX = { schemaVersion: 2, manifests: [CHILD] };

function bytesOf(json: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(json));
}

describe('parseManifest', () => {
  it('reads an image manifest', () => {
    const json = {
      ...IMAGE,
      mediaType: MEDIA_TYPE.ociManifest,
      subject: CHILD,
      artifactType: 'application/x-sbom',
    };
    expect(valueOf(parseManifest(bytesOf(json)))).toEqual({
      kind: 'image',
      mediaType: MEDIA_TYPE.ociManifest,
      config: { mediaType: CONFIG.mediaType, digest: CONFIG.digest, sizeBytes: 10 },
      layers: [{ mediaType: LAYER.mediaType, digest: LAYER.digest, sizeBytes: 20 }],
      subject: {
        mediaType: CHILD.mediaType,
        digest: CHILD.digest,
        sizeBytes: 30,
        platform: CHILD.platform,
      },
      artifactType: 'application/x-sbom',
    });
  });

  it('reads an index and keeps attestations in it', () => {
    const attestation = { ...CHILD, platform: { os: 'unknown', architecture: 'unknown' } };
    const json = { ...INDEX, manifests: [CHILD, attestation, CHILD] };
    const manifest = valueOf(parseManifest(bytesOf(json), MEDIA_TYPE.dockerManifestList));
    expect(manifest).toMatchObject({
      kind: 'index',
      mediaType: MEDIA_TYPE.dockerManifestList,
      manifests: [
        { platform: CHILD.platform },
        { platform: { os: 'unknown', architecture: 'unknown' } },
        { platform: CHILD.platform },
      ],
    });
  });

  it.each([
    ['the given type', IMAGE, MEDIA_TYPE.dockerManifest, MEDIA_TYPE.dockerManifest],
    [
      'the given type with parameters',
      INDEX,
      `${MEDIA_TYPE.ociIndex}; charset=utf-8`,
      MEDIA_TYPE.ociIndex,
    ],
    [
      'the given type before the own one',
      { ...IMAGE, mediaType: MEDIA_TYPE.ociManifest },
      MEDIA_TYPE.dockerManifest,
      MEDIA_TYPE.dockerManifest,
    ],
    [
      'the own type where the given one is none of a manifest',
      { ...INDEX, mediaType: MEDIA_TYPE.dockerManifestList },
      'application/json',
      MEDIA_TYPE.dockerManifestList,
    ],
    ['the shape of an index', INDEX, MEDIA_TYPE.octetStream, MEDIA_TYPE.ociIndex],
    ['the shape of an image', IMAGE, undefined, MEDIA_TYPE.ociManifest],
    [
      'the shape where the own type is foreign',
      { ...IMAGE, mediaType: 'application/x' },
      undefined,
      MEDIA_TYPE.ociManifest,
    ],
  ])('takes the media type from %s', (_, json, given, mediaType) => {
    expect(valueOf(parseManifest(bytesOf(json), given)).mediaType).toBe(mediaType);
  });

  it('takes null and nothing for an empty list', () => {
    expect(
      valueOf(parseManifest(bytesOf({ manifests: null, mediaType: MEDIA_TYPE.ociIndex }))),
    ).toEqual({ kind: 'index', mediaType: MEDIA_TYPE.ociIndex, manifests: [] });
    expect(valueOf(parseManifest(bytesOf({ config: CONFIG, layers: null })))).toMatchObject({
      kind: 'image',
      layers: [],
    });
    const nulls = { ...IMAGE, subject: null, manifests: null };
    expect(valueOf(parseManifest(bytesOf(nulls)))).not.toHaveProperty('subject');
  });

  it('reads an image without a config', () => {
    expect(valueOf(parseManifest(bytesOf({ layers: [LAYER] })))).not.toHaveProperty('config');
  });

  it.each<[string, unknown, string?]>([
    ['null', null],
    ['a list', [IMAGE]],
    ['a text', 'manifest'],
    ['an empty object', {}],
    ['an empty object called an image', {}, MEDIA_TYPE.ociManifest],
    ['both shapes', { ...IMAGE, ...INDEX }],
    ['both shapes, called an index', { ...IMAGE, ...INDEX }, MEDIA_TYPE.ociIndex],
    ['both shapes, called an image', { ...IMAGE, ...INDEX }, MEDIA_TYPE.ociManifest],
    ['both shapes with empty lists', { manifests: [], layers: [] }],
    ['an index with a config', { ...INDEX, config: CONFIG }],
    ['an image called an index', IMAGE, MEDIA_TYPE.ociIndex],
    ['an index called an image', INDEX, MEDIA_TYPE.dockerManifest],
    ['an image that calls itself an index', { ...IMAGE, mediaType: MEDIA_TYPE.ociIndex }],
    [
      'an image that calls itself an index against the given type',
      { ...IMAGE, mediaType: MEDIA_TYPE.ociIndex },
      MEDIA_TYPE.ociManifest,
    ],
    ['schema 1', { schemaVersion: 1, fsLayers: [] }, MEDIA_TYPE.dockerManifestV1Signed],
    ['schema 1 without a type', { schemaVersion: 1, fsLayers: [], history: [] }],
    ['layers that are no list', { config: CONFIG, layers: { 0: LAYER } }],
    ['manifests that are no list', { manifests: 'x' }],
    ['a layer that is none', { config: CONFIG, layers: [LAYER, null] }],
    ['a child with a bad digest', { manifests: [{ ...CHILD, digest: 'sha256:../x' }] }],
    ['a config that is none', { config: [], layers: [LAYER] }],
    ['a subject that is none', { ...IMAGE, subject: 'x' }],
  ])('refuses %s', (_, json, mediaType) => {
    const result = parseManifest(bytesOf(json), mediaType);
    expect(result.ok).toBe(false);
  });

  it.each([
    ['no bytes', new Uint8Array()],
    ['no JSON', new TextEncoder().encode('<html>')],
    ['JSON that is cut', bytesOf(IMAGE).subarray(0, -1)],
    ['JSON with more behind it', new TextEncoder().encode(`${JSON.stringify(IMAGE)}x`)],
    ['a byte order mark', Buffer.concat([Buffer.from('\ufeff'), bytesOf(IMAGE)])],
    ['bytes that are no UTF-8', Buffer.from(JSON.stringify({ ...IMAGE, x: '\u00ff' }), 'latin1')],
    ['a million brackets', Buffer.from('['.repeat(1_000_000))],
    ['a million nested objects', Buffer.from('{"a":'.repeat(1_000_000))],
    [
      'more bytes than allowed',
      Buffer.concat([bytesOf(IMAGE), Buffer.alloc(MAX_MANIFEST_SIZE_BYTES, ' ')]),
    ],
  ])('refuses %s', (_, bytes) => {
    expect(parseManifest(bytes).ok).toBe(false);
  });

  it('takes as many children as its limit allows and no more', () => {
    const layers = (count: number): Uint8Array =>
      bytesOf({ config: CONFIG, layers: Array.from({ length: count }, () => LAYER) });
    expect(parseManifest(layers(MAX_MANIFEST_CHILDREN)).ok).toBe(true);
    expect(parseManifest(layers(MAX_MANIFEST_CHILDREN + 1)).ok).toBe(false);
  });

  it('never throws, on any JSON under any type', () => {
    const parts = fc.oneof(
      fc.jsonValue(),
      fc.constantFrom(CONFIG, CHILD, [LAYER], [CHILD], null, ...Object.values(MEDIA_TYPE)),
    );
    const documents = fc.dictionary(
      fc.constantFrom('mediaType', 'config', 'layers', 'manifests', 'subject', '__proto__'),
      parts,
    );
    const types = fc.option(fc.constantFrom(...Object.values(MEDIA_TYPE)), { nil: undefined });
    fc.assert(
      fc.property(documents, types, (json, type) => {
        const result = parseManifest(bytesOf(json), type);
        if (result.ok) {
          expect(result.value.kind === 'index').toBe('manifests' in result.value);
          expect('manifests' in result.value && 'layers' in result.value).toBe(false);
        } else {
          expect(result.reason).not.toBe('');
        }
      }),
      { numRuns: 500 },
    );
  });

  it('never throws on any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(parseManifest(bytes).ok).toBe(false);
      }),
    );
  });
});

describe('platformMatches', () => {
  const cases: [string, string, boolean][] = [
    ['linux/amd64', 'linux/amd64', true],
    ['linux/amd64/v1', 'linux/amd64', true],
    ['linux/amd64', 'linux/amd64/v3', true],
    ['linux/amd64/v2', 'linux/amd64/v3', true],
    ['linux/amd64/v3', 'linux/amd64/v2', false],
    ['linux/amd64/v2', 'linux/amd64', false],
    ['linux/arm64', 'linux/arm64/v8', true],
    ['linux/arm64/v8', 'linux/arm64', true],
    ['linux/arm64/v8.2', 'linux/arm64/v8.1', false],
    ['linux/arm64/8', 'linux/arm64', true],
    ['linux/arm64/v9', 'linux/arm64/v10', true],
    ['linux/arm', 'linux/arm/v7', true],
    ['linux/arm/v6', 'linux/arm/v7', true],
    ['linux/arm/v7', 'linux/arm/v6', false],
    ['linux/arm/v7', 'linux/arm64', false],
    ['linux/x86_64', 'linux/amd64', true],
    ['linux/aarch64', 'linux/arm64', true],
    ['Linux/AMD64', 'linux/amd64', true],
    ['windows/amd64', 'linux/amd64', false],
    ['unknown/unknown', 'linux/amd64', false],
    ['linux/s390x', 'linux/s390x', true],
    ['linux/riscv64/rva23', 'linux/riscv64/rva23', true],
    ['linux/riscv64/rva23', 'linux/riscv64', false],
    ['linux/amd64/odd', 'linux/amd64', false],
  ];
  it.each(cases)('of %s on %s is %s', (offered, wanted, expected) => {
    expect(platformMatches(platformOf(offered), platformOf(wanted))).toBe(expected);
  });

  function platformOf(text: string): { os: string; architecture: string; variant?: string } {
    const [os = '', architecture = '', variant] = text.split('/');
    return { os, architecture, ...(variant === undefined ? {} : { variant }) };
  }
});

describe('goArchitecture', () => {
  it.each([
    ['x64', 'amd64'],
    ['arm64', 'arm64'],
    ['arm', 'arm'],
    ['ia32', '386'],
    ['ppc64', 'ppc64le'],
    ['s390x', 's390x'],
    ['riscv64', 'riscv64'],
    ['loong64', 'loong64'],
    ['mipsel', 'mipsle'],
  ])('of %s is %s', (nodeArch, expected) => {
    expect(goArchitecture(nodeArch)).toBe(expected);
  });
});
