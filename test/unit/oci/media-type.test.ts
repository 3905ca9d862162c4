import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import {
  isImageManifestMediaType,
  isIndexMediaType,
  isManifestMediaType,
  MANIFEST_ACCEPT,
  MEDIA_TYPE,
  mediaTypeEssence,
} from '../../../src/oci/media-type.ts';
import { titled } from './arbitraries.ts';

describe('mediaTypeEssence', () => {
  it.each([
    ['application/json', 'application/json'],
    ['Application/JSON; charset=utf-8', 'application/json'],
    [' text/plain ;q=1', 'text/plain'],
    ['application/vnd.oci.image.index.v1+json', MEDIA_TYPE.ociIndex],
    ['a/b;c="d;e"', 'a/b'],
  ])('reads %j as %s', (text, essence) => {
    expect(mediaTypeEssence(text)).toBe(essence);
  });

  it.each(
    titled([
      undefined,
      '',
      ';',
      'json',
      '/',
      'a/',
      '/b',
      'a/b/c',
      'a b/c',
      'a/b, c/d',
      'a/b\r\nX-Evil: 1',
      'a/b\0',
      '\u212a/b',
      '*/*x y',
      `a/${'b'.repeat(128)}`,
      `a/b;${'c'.repeat(10_000)}`,
      'a/'.repeat(5_000),
    ]),
  )('finds none in %s', (_, text) => {
    expect(mediaTypeEssence(text)).toBeUndefined();
  });

  it('gives what it reads as itself', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('a', 'B', '/', ';', ' ', '+', '=') }),
        (text) => {
          const essence = mediaTypeEssence(text);
          expect(mediaTypeEssence(essence)).toBe(essence);
        },
      ),
    );
  });
});

describe('the questions about a media type', () => {
  it.each([
    [MEDIA_TYPE.ociManifest, { manifest: true, image: true, index: false }],
    [MEDIA_TYPE.dockerManifest, { manifest: true, image: true, index: false }],
    [MEDIA_TYPE.ociIndex, { manifest: true, image: false, index: true }],
    [MEDIA_TYPE.dockerManifestList, { manifest: true, image: false, index: true }],
    [MEDIA_TYPE.dockerManifestV1, { manifest: true, image: false, index: false }],
    [MEDIA_TYPE.dockerManifestV1Signed, { manifest: true, image: false, index: false }],
    [MEDIA_TYPE.ociConfig, { manifest: false, image: false, index: false }],
    [MEDIA_TYPE.json, { manifest: false, image: false, index: false }],
    [MEDIA_TYPE.octetStream, { manifest: false, image: false, index: false }],
    [`${MEDIA_TYPE.ociIndex}x`, { manifest: false, image: false, index: false }],
    ['', { manifest: false, image: false, index: false }],
    [undefined, { manifest: false, image: false, index: false }],
  ])('are answered for %s', (type, expected) => {
    expect({
      manifest: isManifestMediaType(type),
      image: isImageManifestMediaType(type),
      index: isIndexMediaType(type),
    }).toEqual(expected);
  });
});

describe('MANIFEST_ACCEPT', () => {
  it('is one line that names the four types and then anything', () => {
    expect(MANIFEST_ACCEPT.split(', ')).toEqual([
      'application/vnd.docker.distribution.manifest.v2+json',
      'application/vnd.docker.distribution.manifest.list.v2+json',
      'application/vnd.oci.image.manifest.v1+json',
      'application/vnd.oci.image.index.v1+json',
      '*/*',
    ]);
  });
});
