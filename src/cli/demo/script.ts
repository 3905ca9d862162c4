import { HELD_BLOB_BYTES } from '../../registry/small-blob.ts';
import type { DemoImage, Pulled } from './demo-node.ts';
import { isJoined, type ServedPart } from './served-part.ts';
import type { SummaryRow } from './summary.ts';
import { megabytes, type Timeline } from './timeline.ts';

export const NODE_NAMES = ['a', 'b', 'c', 'd'] as const;
export type NodeName = (typeof NODE_NAMES)[number];

/** What the play needs of the stage; a test gives it less than a real one. */
export interface Stage {
  readonly image: DemoImage;
  /** What the upstream is, for people. */
  readonly upstreamText: string;
  readonly upstream: {
    readonly pid: number;
    start(): Promise<void>;
    kill(): Promise<void>;
    killInTheMiddle(digest: string, afterBytes: number): Promise<void>;
  };
  /** @param onReady told of each node that is ready */
  startNodes(onReady: (name: NodeName) => void): Promise<void>;
  node(name: NodeName): {
    pull(image: DemoImage, reference: string, onPart: (part: ServedPart) => void): Promise<Pulled>;
  };
  /** The same pull as a node makes it that does not know Salvor. */
  pullWithoutSalvor(): Promise<void>;
}

const SHOWN_DIGEST = 'sha256:'.length + 12;
const MAX_FAILURE_LENGTH = 300;

/**
 * Plays the control, and then the outage three ways.
 *
 * @returns a line for each pull
 * @throws when anything does not go as it must, the control included
 */
export async function play(stage: Stage, timeline: Timeline): Promise<SummaryRow[]> {
  return new Play(stage, timeline).run();
}

class Play {
  readonly #stage: Stage;
  readonly #timeline: Timeline;
  readonly #rows: SummaryRow[] = [];

  constructor(stage: Stage, timeline: Timeline) {
    this.#stage = stage;
    this.#timeline = timeline;
  }

  async run(): Promise<SummaryRow[]> {
    await this.#control();
    this.#timeline.heading(`With Salvor: ${NODE_NAMES.length} nodes, the registry is back`);
    await this.#start();
    await this.#stage.startNodes((name) => {
      this.#timeline.event(`node ${name} is ready: its store, an agent, a registry, mutual TLS`);
    });
    const healthy = await this.#pull('healthy', { node: 'a', by: 'tag' });
    demandSource(healthy, (source) => source === 'upstream', 'the registry is healthy');
    await this.#dead(healthy.root);
    await this.#diesInTheMiddle(healthy);
    return this.#rows;
  }

  async #control(): Promise<void> {
    const { registry, repository, tag } = this.#stage.image;
    const name = `${registry}/${repository}:${tag}`;
    this.#timeline.heading('Control: without Salvor');
    this.#timeline.event(`${this.#stage.upstreamText}, process ${this.#stage.upstream.pid}`);
    const obstacle = await this.#withoutSalvor('healthy');
    if (obstacle !== undefined) throw new Error(`Cannot pull from the registry: ${obstacle}`);
    this.#timeline.good(`a node without Salvor pulls ${name}`);
    await this.#kill();
    const failure = await this.#withoutSalvor('dead');
    if (failure === undefined) {
      throw new Error(
        'Cannot show anything: without Salvor, a pull from the dead registry still succeeds',
      );
    }
    const words = failure.slice(0, MAX_FAILURE_LENGTH);
    this.#timeline.good(`the same pull fails, as it must: ${words}`);
  }

  /** @returns why it failed, where it did */
  async #withoutSalvor(situation: string): Promise<string | undefined> {
    const startedAt = this.#timeline.seconds();
    const failure = await this.#stage.pullWithoutSalvor().then(
      () => undefined,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
    this.#rows.push({
      situation,
      pull: 'without Salvor',
      result: failure === undefined ? 'succeeds' : 'fails',
      seconds: this.#timeline.seconds() - startedAt,
      parts: undefined,
    });
    return failure;
  }

  async #dead(root: string): Promise<void> {
    this.#timeline.heading('The registry is dead');
    await this.#kill();
    for (const { node, by } of [
      { node: 'b', by: 'tag' },
      { node: 'c', by: 'digest' },
    ] as const) {
      const pulled = await this.#pull('dead', { node, by, root });
      demandSource(pulled, (source) => !source.includes('upstream'), 'the registry is dead');
    }
  }

  async #diesInTheMiddle({ root, parts }: Pulled): Promise<void> {
    this.#timeline.heading('The registry dies in the middle of a blob');
    await this.#start();
    const largest = parts.toSorted((x, y) => y.sizeBytes - x.sizeBytes)[0];
    if (largest === undefined) throw new Error('Cannot go on: the image has no content');
    const { digest, sizeBytes } = largest;
    const half = Math.floor(sizeBytes / 2);
    const died = this.#stage.upstream.killInTheMiddle(digest, half).then(() => {
      this.#timeline.event(
        `the registry is killed (SIGKILL) after byte ${half} of ${sizeBytes} of ` +
          digest.slice(0, SHOWN_DIGEST),
      );
      return 'died' as const;
    });
    const pulling = this.#pull('dies mid-blob', { node: 'd', by: 'tag', root });
    const pulled = await Promise.race([died, pulling]);
    if (pulled !== 'died') {
      throw new Error(`Cannot see the registry die: it was not asked for half of ${digest}`);
    }
    const { parts: served } = await pulling;
    const whole = served.filter((part) => part.digest === digest && part.sizeBytes === sizeBytes);
    if (whole.some((part) => isJoined(part.source))) {
      this.#timeline.good('one response: the beginning from the registry, the rest from a node');
      return;
    }
    // Of a small blob nothing goes out before all of it is there, from whichever source was first.
    if (sizeBytes > HELD_BLOB_BYTES || !whole.some((part) => part.source.startsWith('node/'))) {
      throw new Error(`Cannot see ${digest} come from two sources in one response`);
    }
    this.#timeline.good('one response: what the registry began came whole from a node');
  }

  async #pull(
    situation: string,
    options: { readonly node: NodeName; readonly by: 'tag' | 'digest'; readonly root?: string },
  ): Promise<Pulled> {
    const { node, by, root } = options;
    const { image } = this.#stage;
    const reference = by === 'tag' || root === undefined ? image.tag : root;
    const pull = `node ${node} by ${by}`;
    this.#timeline.event(
      `node ${node}, which never had the image, pulls it by ${by} ` +
        (by === 'tag' ? reference : reference.slice(0, SHOWN_DIGEST)),
    );
    const startedAt = this.#timeline.seconds();
    const pulled = await this.#stage
      .node(node)
      .pull(image, reference, (part) => this.#timeline.detail(describe(part, image.tag)));
    const seconds = this.#timeline.seconds() - startedAt;
    if (root !== undefined && pulled.root !== root) {
      throw new Error(`Cannot be: node ${node} got ${pulled.root} instead of ${root}`);
    }
    this.#timeline.good(
      `${megabytes(pulled.sizeBytes)} in ${pulled.blobs} blobs are in the store of node ${node}, ` +
        'every digest recomputed',
    );
    this.#rows.push({ situation, pull, result: 'succeeds', seconds, parts: pulled.parts });
    return pulled;
  }

  async #start(): Promise<void> {
    await this.#stage.upstream.start();
    this.#timeline.event(`the registry is started again, process ${this.#stage.upstream.pid}`);
  }

  async #kill(): Promise<void> {
    const { pid } = this.#stage.upstream;
    await this.#stage.upstream.kill();
    this.#timeline.event(`the registry is killed (SIGKILL to process ${pid})`);
  }
}

function describe(part: ServedPart, tag: string): string {
  const { what, digest, sizeBytes, source, status, failed } = part;
  const name = what === 'tag' ? tag : digest.slice(0, SHOWN_DIGEST);
  const size = what === 'tag' ? '' : megabytes(sizeBytes);
  const outcome =
    status < 400 ? `from ${source.split(',').join(', then ')}` : `answered with ${status}`;
  const troubles = failed.map((attempt) => `${attempt.source} ${attempt.outcome}`);
  return (
    `${what.padEnd(8)}  ${name.padEnd(SHOWN_DIGEST)}  ${size.padStart(8)}  ${outcome}` +
    (troubles.length === 0 ? '' : `  (${troubles.join(', ')})`)
  );
}

function demandSource(
  { parts }: Pulled,
  isRight: (source: string) => boolean,
  since: string,
): void {
  const content = parts.filter(({ what, status }) => what !== 'tag' && status < 400);
  if (content.length === 0) throw new Error('Cannot go on: nothing was asked of Salvor');
  const wrong = content.find(({ source }) => !isRight(source));
  if (wrong !== undefined) {
    throw new Error(`Cannot be: ${wrong.digest} came from ${wrong.source}, and ${since}`);
  }
}
