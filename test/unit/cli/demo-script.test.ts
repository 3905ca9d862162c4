import { describe, expect, test } from 'vitest';
import { play, type Stage } from '../../../src/cli/demo/script.ts';
import type { ServedPart } from '../../../src/cli/demo/demo-node.ts';
import { Timeline } from '../../../src/cli/demo/timeline.ts';

const layer = `sha256:${'a'.repeat(64)}`;
const manifest = `sha256:${'b'.repeat(64)}`;

function parts(source: string): ServedPart[] {
  return [
    { what: 'manifest', digest: manifest, sizeBytes: 500, source },
    { what: 'blob', digest: layer, sizeBytes: 1000, source },
  ];
}

/** A stage on which nothing runs; `sources` is who serves each node. */
function stageWith(options: {
  control?: 'fails' | 'succeeds';
  sources?: Partial<Record<'a' | 'b' | 'c' | 'd', string>>;
}): Stage & { readonly asked: string[] } {
  let isAlive = true;
  const asked: string[] = [];
  const sources = { a: 'upstream', b: 'node/a', c: 'node/a', d: 'upstream,node/a' };
  return {
    asked,
    image: { registry: 'registry.test', repository: 'app', tag: 'v1' },
    upstream: {
      port: 1,
      pid: 2,
      start: async () => {
        isAlive = true;
      },
      kill: async () => {
        isAlive = false;
      },
      killInTheMiddle: async () => {
        isAlive = false;
      },
    },
    startNodes: async () => undefined,
    node: (name) => ({
      pull: async (_image, reference) => {
        asked.push(`${name} ${reference}`);
        return parts({ ...sources, ...options.sources }[name]);
      },
    }),
    pullWithoutSalvor: async () => {
      if (!isAlive && options.control !== 'succeeds') throw new Error('connection refused');
    },
  };
}

function timeline(): { timeline: Timeline; text: () => string } {
  let text = '';
  const output = { write: (more: string) => void (text += more), colours: false };
  return { timeline: new Timeline(output), text: () => text };
}

describe('play', () => {
  test('goes through by tag, by digest and mid-blob', async () => {
    const stage = stageWith({});
    const told = timeline();
    await play(stage, told.timeline);
    expect(stage.asked).toEqual(['a v1', 'b v1', `c ${manifest}`, 'd v1']);
    expect(told.text()).toContain('from upstream, then node/a');
    expect(told.text()).toContain('the same pull fails, as it must: connection refused');
  });

  test('fails when the control pull succeeds from a dead registry', async () => {
    await expect(play(stageWith({ control: 'succeeds' }), timeline().timeline)).rejects.toThrow(
      'a pull from a dead registry succeeded without Salvor',
    );
  });

  test.each([
    { name: 'the healthy pull did not come from the upstream', sources: { a: 'node/b' } },
    { name: 'a dead upstream is said to have served', sources: { b: 'upstream' } },
    { name: 'no blob came from two sources', sources: { d: 'node/a' } },
  ])('fails when $name', async ({ sources }) => {
    await expect(play(stageWith({ sources }), timeline().timeline)).rejects.toThrow(/Cannot/);
  });
});
