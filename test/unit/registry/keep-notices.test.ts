import { beforeEach, describe, expect, it } from 'vitest';
import { digestOf } from '../../../src/oci/digest.ts';
import { ImageParts } from '../../../src/registry/image-parts.ts';
import { KeepNotices } from '../../../src/registry/keep-notices.ts';
import type { AgentClient } from '../../../src/rpc/agent-client.ts';
import { AgentError } from '../../../src/rpc/agent-error.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { base, config, passed, passedIndex } from './passed-manifest.ts';

type Notice = Parameters<AgentClient['keep']>[0];

const app = passed('app');
const index = passedIndex([app]);
const unknown = digestOf(Buffer.from('unknown'));
const away = new AgentError('unavailable', 'Cannot ask the own agent');

let told: Notice[];
let answer: () => Promise<number>;
let warnings: string[];
let clock: FakeClock;
let notices: KeepNotices;

beforeEach(() => {
  told = [];
  warnings = [];
  answer = async () => 3;
  clock = new FakeClock();
  notices = new KeepNotices({
    agent: {
      keep: async (notice) => {
        told.push(notice);
        return answer();
      },
    },
    parts: new ImageParts(),
    log: { warn: (_: unknown, message?: string) => void warnings.push(message ?? '') },
    clock,
  });
});

function begin(promise: Promise<void>): { readonly isDone: () => boolean } {
  let done = false;
  void promise.then(() => (done = true));
  return { isDone: () => done };
}

/** Whatever is due is done by then. */
async function turn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

describe('KeepNotices', () => {
  it('names the image of the first blob, once', async () => {
    notices.manifestPassed(index);
    notices.manifestPassed(app);
    await notices.blobAsked(config('app'));
    await notices.blobAsked(base);
    const images = [{ manifest: app.digest, indexes: [index.digest] }];
    expect(told).toEqual([{ digest: config('app'), images }]);
  });

  it('names it again when its manifest has passed again, and after a while', async () => {
    notices.manifestPassed(app);
    await notices.blobAsked(base);
    notices.manifestPassed(app);
    await notices.blobAsked(base);
    expect(told).toHaveLength(2);
    clock.advance(59_999);
    await notices.blobAsked(base);
    expect(told).toHaveLength(2);
    clock.advance(1);
    await notices.blobAsked(base);
    expect(told).toHaveLength(3);
  });

  it('names only the images that the agent was not told of', async () => {
    const sibling = passed('sibling');
    notices.manifestPassed(app);
    await notices.blobAsked(base);
    notices.manifestPassed(sibling);
    await notices.blobAsked(base);
    expect(told[1]!.images.map(({ manifest }) => manifest)).toEqual([sibling.digest]);
  });

  it('tells of a blob of no known image, once', async () => {
    await notices.blobAsked(unknown);
    await notices.blobAsked(unknown);
    expect(told).toEqual([{ digest: unknown, images: [] }]);
  });

  it('waits 50 ms for the agent, and then for no other notice until one is answered', async () => {
    const { promise, resolve } = Promise.withResolvers<number>();
    answer = () => promise;
    notices.manifestPassed(app);
    const asked = notices.blobAsked(base);
    const first = begin(asked);
    await clock.untilSleeping();
    clock.advance(49);
    await Promise.resolve();
    expect(first.isDone()).toBe(false);
    clock.advance(1);
    await asked;

    await notices.blobAsked(unknown);
    expect(told).toHaveLength(2);
    expect(clock.sleeping).toBe(0);

    resolve(1);
    await promise;
    answer = () => new Promise(() => undefined);
    await turn();
    void notices.blobAsked(digestOf(Buffer.from('another')));
    await clock.untilSleeping();
    expect(clock.sleeping).toBe(1);
  });

  it('changes nothing when the agent fails, and tells it with the next blob', async () => {
    answer = () => Promise.reject(away);
    notices.manifestPassed(app);
    await notices.blobAsked(config('app'));
    expect(warnings).toEqual(['cannot have an image kept']);
    await notices.blobAsked(base);
    await turn();
    expect(told).toHaveLength(2);
    expect(warnings).toHaveLength(1);
    answer = async () => 1;
    await notices.blobAsked(base);
    await notices.blobAsked(base);
    expect(told).toHaveLength(3);
  });

  it('leaves an agent alone that is too old for it', async () => {
    answer = () => Promise.reject(new AgentError('unimplemented', 'Cannot ask the own agent'));
    notices.manifestPassed(app);
    await notices.blobAsked(config('app'));
    await notices.blobAsked(base);
    expect(told).toHaveLength(1);
  });

  it('has few notices under way at a time', async () => {
    answer = () => new Promise(() => undefined);
    for (let count = 0; count < 40; count += 1) {
      void notices.blobAsked(digestOf(Buffer.from(`blob ${count}`)));
    }
    expect(told).toHaveLength(32);
    clock.advance(50);
  });
});
