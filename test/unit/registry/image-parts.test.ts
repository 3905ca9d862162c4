import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../src/oci/digest.ts';
import { ImageParts } from '../../../src/registry/image-parts.ts';
import { base, config, passed, passedIndex } from './passed-manifest.ts';

describe('ImageParts', () => {
  it('knows the image of a blob, and the index of the image', () => {
    const parts = new ImageParts();
    const app = passed('app');
    const index = passedIndex([app]);
    parts.add(index);
    parts.add(app);
    const image = { manifest: app.digest, indexes: [index.digest] };
    expect(parts.imagesOf(config('app'))).toEqual([image]);
    expect(parts.imagesOf(base)).toEqual([image]);
    expect(parts.imagesOf(digestOf(Buffer.from('unknown')))).toEqual([]);
  });

  it('puts the image first whose manifest passed last', () => {
    const parts = new ImageParts();
    const [one, two] = [passed('one'), passed('two')];
    parts.add(one);
    parts.add(two);
    expect(parts.imagesOf(base).map(({ manifest }) => manifest)).toEqual([two.digest, one.digest]);
    parts.add(one);
    expect(parts.imagesOf(base).map(({ manifest }) => manifest)).toEqual([one.digest, two.digest]);
  });

  it('remembers a few images of a blob that very many have', () => {
    const parts = new ImageParts();
    const images = Array.from({ length: 20 }, (_, index) => passed(`image-${index}`));
    for (const image of images) parts.add(image);
    const known = parts.imagesOf(base).map(({ manifest }) => manifest);
    expect(known).toEqual(
      images
        .slice(-8)
        .reverse()
        .map(({ digest }) => digest),
    );
  });

  it('takes nothing from what is no manifest', () => {
    const parts = new ImageParts();
    const bytes = Buffer.from('{"odd":true}');
    parts.add({ digest: digestOf(bytes), mediaType: 'application/json', bytes });
    expect(parts.imagesOf(base)).toEqual([]);
  });
});
