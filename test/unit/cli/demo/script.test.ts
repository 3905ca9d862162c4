import { describe, expect, test } from 'vitest';
import type { Pulled } from '../../../../src/cli/demo/demo-node.ts';
import { play, type NodeName, type Stage } from '../../../../src/cli/demo/script.ts';
import type { ServedPart } from '../../../../src/cli/demo/served-part.ts';
import { Timeline } from '../../../../src/cli/demo/timeline.ts';

const layer = `sha256:${'a'.repeat(64)}`;
const manifest = `sha256:${'b'.repeat(64)}`;
const layerBytes = 2_000_001;

function partsFrom(source: string, blobSource = source): ServedPart[] {
  const common = { status: 200, failed: [] };
  return [
    { ...common, what: 'tag', digest: '', sizeBytes: 0, source },
    { ...common, what: 'manifest', digest: manifest, sizeBytes: 500, source },
    { ...common, what: 'blob', digest: layer, sizeBytes: layerBytes, source: blobSource },
  ];
}

interface FakeOptions {
  readonly healthyControl?: 'fails';
  readonly deadControl?: 'succeeds';
  readonly survives?: boolean;
  readonly pulls?: Partial<Record<NodeName, Partial<Pulled>>>;
}

/** A stage on which nothing runs. */
function fakeStage(options: FakeOptions = {}): Stage & { readonly done: string[] } {
  let isAlive = true;
  const done: string[] = [];
  const parts: Record<NodeName, ServedPart[]> = {
    a: partsFrom('upstream'),
    b: partsFrom('node/a'),
    c: partsFrom('node/a'),
    d: partsFrom('upstream', 'upstream,node/a'),
  };
  return {
    done,
    image: { registry: 'registry.test', repository: 'app', tag: 'v1' },
    upstreamText: 'the registry answers',
    upstream: {
      pid: 2,
      start: async () => {
        isAlive = true;
        done.push('start');
      },
      kill: async () => {
        isAlive = false;
        done.push('kill');
      },
      killInTheMiddle: async (digest, afterBytes) => {
        if (options.survives === true) return new Promise(() => undefined);
        isAlive = false;
        done.push(`kill after ${afterBytes} of ${digest}`);
      },
    },
    startNodes: async (onReady) => onReady('a'),
    node: (name) => ({
      pull: async (_image, reference, onPart) => {
        // The registry's death in the middle comes before the end of the pull.
        await new Promise((resolve) => setImmediate(resolve));
        done.push(`${name} ${reference}`);
        for (const part of parts[name]) onPart(part);
        const pulled = { root: manifest, blobs: 2, sizeBytes: 1501, parts: parts[name] };
        return { ...pulled, ...options.pulls?.[name] };
      },
    }),
    pullWithoutSalvor: async () => {
      const result = isAlive ? options.healthyControl : (options.deadControl ?? 'fails');
      if (result === 'fails') throw new Error('connection refused');
    },
  };
}

function fakeTimeline(): { timeline: Timeline; text: () => string } {
  let text = '';
  const output = { write: (more: string) => void (text += more), colours: false };
  return { timeline: new Timeline(output), text: () => text };
}

describe('play', () => {
  test('goes through by tag, by digest and mid-blob', async () => {
    const stage = fakeStage();
    const told = fakeTimeline();

    const rows = await play(stage, told.timeline);

    expect(stage.done).toEqual([
      'kill',
      'start',
      'a v1',
      'kill',
      'b v1',
      `c ${manifest}`,
      'start',
      `kill after 1000000 of ${layer}`,
      'd v1',
    ]);
    expect(rows.map(({ situation, pull, result }) => [situation, pull, result])).toEqual([
      ['healthy', 'without Salvor', 'succeeds'],
      ['dead', 'without Salvor', 'fails'],
      ['healthy', 'node a by tag', 'succeeds'],
      ['dead', 'node b by tag', 'succeeds'],
      ['dead', 'node c by digest', 'succeeds'],
      ['dies mid-blob', 'node d by tag', 'succeeds'],
    ]);
    expect(told.text()).toContain('from upstream, then node/a');
    expect(told.text()).toContain('the same pull fails, as it must: connection refused');
  });

  test.each(['node/a', 'upstream,node/a'])('accepts a small blob from %s', async (source) => {
    const small = (from: string): Partial<Pulled> => ({
      parts: partsFrom('upstream', from)
        .map((part) => ({ ...part, sizeBytes: 1001 }))
        .slice(2),
    });
    const stage = fakeStage({ pulls: { a: small('upstream'), d: small(source) } });

    const rows = await play(stage, fakeTimeline().timeline);

    expect(stage.done).toContain(`kill after 500 of ${layer}`);
    expect(rows.at(-1)?.result).toBe('succeeds');
  });

  test('shows what failed before and what was refused', async () => {
    const failed = [{ source: 'upstream', outcome: 'refused' }];
    const parts = partsFrom('node/a').map((part) => ({ ...part, failed }));
    const told = fakeTimeline();
    const stage = fakeStage();
    const node: Stage['node'] = (name) => ({
      pull: async (image, reference, onPart) => {
        for (const part of parts) onPart({ ...part, status: 503 });
        return stage.node(name).pull(image, reference, onPart);
      },
    });

    await play({ ...stage, node }, told.timeline);

    expect(told.text()).toMatch(/answered with 503 {2}\(upstream refused\)/);
  });

  test('fails when the control pull succeeds from a dead registry', async () => {
    const stage = fakeStage({ deadControl: 'succeeds' });

    await expect(play(stage, fakeTimeline().timeline)).rejects.toThrow(
      'Cannot show anything: without Salvor, a pull from the dead registry still succeeds',
    );
    expect(stage.done).toEqual(['kill']);
  });

  const otherRoot = { root: layer };
  test.each<FakeOptions & { name: string; error: string }>([
    {
      name: 'the registry cannot be pulled from at all',
      healthyControl: 'fails',
      error: 'Cannot pull from the registry: connection refused',
    },
    {
      name: 'a node served although the registry is healthy',
      pulls: { a: { parts: partsFrom('node/b') } },
      error: 'came from node/b, and the registry is healthy',
    },
    {
      name: 'a dead registry is said to have served',
      pulls: { b: { parts: partsFrom('upstream') } },
      error: 'came from upstream, and the registry is dead',
    },
    {
      name: 'Salvor was not asked',
      pulls: { c: { parts: [] } },
      error: 'nothing was asked of Salvor',
    },
    { name: 'a tag names something else', pulls: { b: otherRoot }, error: 'instead of sha256:b' },
    { name: 'the registry never dies', survives: true, error: 'Cannot see the registry die' },
    {
      name: 'no blob came from two sources',
      pulls: { d: { parts: partsFrom('node/a') } },
      error: 'Cannot see',
    },
    {
      name: 'another blob than the broken one came from two sources',
      pulls: {
        d: {
          parts: partsFrom('upstream').map((part) => ({
            ...part,
            source: part.what === 'manifest' ? 'upstream,node/a' : part.source,
          })),
        },
      },
      error: 'come from two sources in one response',
    },
  ])('fails when $name', async ({ name, error, ...options }) => {
    await expect(play(fakeStage(options), fakeTimeline().timeline), name).rejects.toThrow(error);
  });
});
