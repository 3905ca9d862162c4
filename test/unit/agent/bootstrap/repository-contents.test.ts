import { describe, expect, test } from 'vitest';
import { RepositoryContents } from '../../../../src/agent/bootstrap/repository-contents.ts';
import { HeldContent } from '../../../../src/agent/held-content.ts';
import { ManifestReader } from '../../../../src/agent/inventory/manifest-reader.ts';
import { Observations } from '../../../../src/agent/observations.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { NamedStore, rulesFor } from './bootstrap-scene.ts';

const MAX_IMAGES = 1000;
const HOUR_MS = 3_600_000;

/** A node with so many images that may be read, each in a repository of its own. */
function withImages(count: number) {
  const store = new NamedStore();
  const image = store.addManifest('a');
  for (let index = 1; index <= count; index += 1) {
    store.name(`registry.test/team/app-${index}:1.0`, image.target);
  }
  const clock = new FakeClock();
  const warnings: string[] = [];
  const contents = new RepositoryContents(
    { rules: rulesFor({ repositories: ['registry.test/*'] }) },
    {
      content: new HeldContent({
        store,
        integrity: { stateOf: () => 'verified', request: () => undefined },
        reports: { add: async () => 'verified' },
        observations: new Observations({ maxNames: 1 }),
      }),
      reader: new ManifestReader({}, { store }),
      clock,
      log: { warn: (_fields: object, text?: string) => void warnings.push(text ?? '') },
    },
  );
  const has = async (index: number): Promise<boolean> =>
    (await contents.of(`registry.test/team/app-${index}`, () => true)) !== undefined;
  return { clock, has, warnings };
}

describe('RepositoryContents', () => {
  test('RepositoryContents takes as many images as there may be without a word', async () => {
    const { has, warnings } = withImages(MAX_IMAGES);
    expect(await has(MAX_IMAGES)).toBe(true);
    expect(warnings).toEqual([]);
  });

  test('RepositoryContents leaves out what is too much, and says so now and then', async () => {
    const { clock, has, warnings } = withImages(MAX_IMAGES + 1);
    expect(await has(MAX_IMAGES)).toBe(true);
    for (let look = 0; look < 5; look += 1) {
      expect(await has(MAX_IMAGES + 1)).toBe(false);
      clock.advance(10_000);
    }
    expect(warnings).toHaveLength(1);
    clock.advance(HOUR_MS);
    expect(await has(MAX_IMAGES + 1)).toBe(false);
    expect(warnings).toHaveLength(2);
  });
});
