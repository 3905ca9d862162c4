import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { ConfigWatch } from '../../../src/cli/config-watch.ts';
import type { FileContent } from '../../../src/config/config-file.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const intervalMs = 2000;

let clock: FakeClock;
let content: FileContent;
let taken: FileContent[];
let watch: ConfigWatch<FileContent>;

beforeEach(() => {
  clock = new FakeClock();
  content = { text: 'a' };
  taken = [];
  watch = new ConfigWatch(
    { intervalMs, content },
    {
      read: async () => content,
      take: async (found) => void taken.push(found),
      clock,
    },
  );
});

afterEach(async () => {
  await watch.stop();
  expect(clock.sleeping).toBe(0);
});

/** Lets the watch look at the file once, and waits until it has. */
async function look(): Promise<void> {
  await clock.untilSleeping();
  clock.advance(intervalMs);
  await clock.untilSleeping();
}

describe('ConfigWatch', () => {
  test('ConfigWatch takes what is the same at two looks', async () => {
    watch.start();
    content = { text: 'b' };
    await look();
    expect(taken).toEqual([]);
    await look();
    await look();
    expect(taken).toEqual([{ text: 'b' }]);
  });

  test('ConfigWatch waits while the file is being written', async () => {
    watch.start();
    for (const text of ['b', 'bc', 'bcd', '']) {
      content = { text };
      await look();
    }
    expect(taken).toEqual([]);
    content = { text: 'bcde' };
    await look();
    await look();
    expect(taken).toEqual([{ text: 'bcde' }]);
  });

  test('ConfigWatch takes nothing when the file is back at what it was', async () => {
    watch.start();
    content = { text: 'b' };
    await look();
    content = { text: 'a' };
    await look();
    content = { text: 'b' };
    await look();
    expect(taken).toEqual([]);
  });

  test('ConfigWatch hands over a file that cannot be read once, and then the good one', async () => {
    watch.start();
    content = { failure: 'ENOENT' };
    for (let looks = 0; looks < 5; looks += 1) await look();
    expect(taken).toEqual([{ failure: 'ENOENT' }]);
    content = { text: 'a' };
    await look();
    await look();
    expect(taken).toEqual([{ failure: 'ENOENT' }, { text: 'a' }]);
  });

  test('ConfigWatch takes the file at once when asked, changed or not', async () => {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    watch = new ConfigWatch(
      { intervalMs, content },
      {
        read: async () => content,
        take: async (found) => {
          taken.push(found);
          resolve(undefined);
        },
        clock,
      },
    );
    watch.ask();
    watch.ask();
    await promise;
    await watch.stop();
    expect(taken).toEqual([{ text: 'a' }]);
  });

  test('ConfigWatch does not take again what was taken when asked', async () => {
    watch.start();
    content = { text: 'b' };
    watch.ask();
    await look();
    await look();
    expect(taken).toEqual([{ text: 'b' }]);
  });

  test('ConfigWatch waits at its end for what is being taken, and takes nothing after', async () => {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const begun = Promise.withResolvers<undefined>();
    let isOver = false;
    watch = new ConfigWatch(
      { intervalMs, content },
      {
        read: async () => content,
        take: async () => {
          begun.resolve(undefined);
          await promise;
          isOver = true;
        },
        clock,
      },
    );
    watch.ask();
    await begun.promise;
    const stopped = watch.stop().then(() => isOver);
    resolve(undefined);
    expect(await stopped).toBe(true);
    watch.ask();
    await watch.stop();
    expect(taken).toEqual([]);
  });
});
