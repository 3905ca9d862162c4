import type { DemoImage, ServedPart } from './demo-node.ts';
import type { NodeName } from './stage.ts';
import { megabytes, type Timeline } from './timeline.ts';

/** What the play needs of the stage; a test gives it less than a real one. */
export interface Stage {
  readonly image: DemoImage;
  readonly upstream: {
    readonly port: number;
    readonly pid: number;
    start(): Promise<void>;
    kill(): Promise<void>;
    killInTheMiddle(
      digest: string,
      options: { afterBytes: number; bytesPerSecond: number },
    ): Promise<void>;
  };
  startNodes(): Promise<void>;
  node(name: NodeName): {
    pull(image: DemoImage, reference: string): Promise<ServedPart[]>;
  };
  pullWithoutSalvor(): Promise<void>;
}

/** How long the slowed blob takes until the upstream dies in its middle, seconds. */
const SECONDS_TO_THE_MIDDLE = 0.7;

/**
 * The play: the control, then the outage three ways.
 *
 * @throws when anything does not go as it must, the control included
 */
export async function play(stage: Stage, timeline: Timeline): Promise<void> {
  await control(stage, timeline);
  timeline.heading('With Salvor');
  await stage.upstream.start();
  timeline.event(`the upstream is up again (process ${stage.upstream.pid}), starting 4 nodes`);
  await stage.startNodes();
  timeline.event('each node runs an agent and a registry, mutual TLS between them');
  const { digest, largest } = await healthy(stage, timeline);
  await gone(stage, timeline, digest);
  await midBlob(stage, timeline, largest);
}

async function control(stage: Stage, timeline: Timeline): Promise<void> {
  const { registry, repository, tag } = stage.image;
  timeline.heading('Control: without Salvor');
  timeline.event(
    `${registry} answers on 127.0.0.1:${stage.upstream.port} (process ${stage.upstream.pid})`,
  );
  await stage.pullWithoutSalvor();
  timeline.good(`${repository}:${tag} can be pulled`);
  await stage.upstream.kill();
  timeline.event('the upstream is killed (SIGKILL)');
  let failure: string | undefined;
  try {
    await stage.pullWithoutSalvor();
  } catch (error) {
    const { message, cause } = error as Error;
    failure = cause instanceof Error && message === 'fetch failed' ? cause.message : message;
  }
  if (failure === undefined) {
    timeline.bad('the same pull still succeeds: this demo would show nothing');
    throw new Error('Cannot go on: a pull from a dead registry succeeded without Salvor');
  }
  timeline.good(`the same pull fails, as it must: ${failure.slice(0, 300)}`);
}

async function healthy(
  stage: Stage,
  timeline: Timeline,
): Promise<{ digest: string; largest: ServedPart }> {
  const { image } = stage;
  timeline.heading('The registry is healthy');
  const parts = await stage.node('a').pull(image, image.tag);
  tell(timeline, 'node a pulls by tag', parts);
  demand(parts, ({ source }) => source === 'upstream', 'only the upstream can have served node a');
  const largest = parts.toSorted((x, y) => y.sizeBytes - x.sizeBytes)[0];
  const digest = parts.find(({ what, digest: known }) => what === 'manifest' && known !== '');
  if (largest === undefined) throw new Error('Cannot go on: the image has no content');
  return { digest: digest?.digest ?? '', largest };
}

async function gone(stage: Stage, timeline: Timeline, digest: string): Promise<void> {
  const { image } = stage;
  timeline.heading('The registry is dead');
  await stage.upstream.kill();
  timeline.event('the upstream is killed (SIGKILL)');
  const byTag = await stage.node('b').pull(image, image.tag);
  tell(timeline, 'node b, which never had the image, pulls by tag', byTag);
  demand(byTag, ({ source }) => !source.includes('upstream'), 'the upstream is dead');
  const known = digest === '' ? image.tag : digest;
  const byDigest = await stage.node('c').pull(image, known);
  tell(timeline, 'node c, which never had it either, pulls by digest', byDigest);
  demand(byDigest, ({ source }) => !source.includes('upstream'), 'the upstream is dead');
}

async function midBlob(stage: Stage, timeline: Timeline, largest: ServedPart): Promise<void> {
  const { image } = stage;
  timeline.heading('The registry dies in the middle of a blob');
  await stage.upstream.start();
  // The nodes notice by themselves within seconds; meanwhile they would answer each other.
  timeline.event('the upstream is up again; waiting until node d uses it');
  const died = stage.upstream.killInTheMiddle(largest.digest, {
    afterBytes: largest.sizeBytes / 2,
    bytesPerSecond: largest.sizeBytes / 2 / SECONDS_TO_THE_MIDDLE,
  });
  const pulled = stage.node('d').pull(image, image.tag);
  await Promise.race([died, pulled]);
  timeline.event(
    `the upstream is killed after ${megabytes(largest.sizeBytes / 2)} of ` +
      `${megabytes(largest.sizeBytes)} of a layer`,
  );
  const parts = await pulled;
  tell(timeline, 'node d, which never had the image, pulls by tag', parts);
  const joined = parts.some(
    ({ digest, source }) => digest === largest.digest && /^upstream,node\//.test(source),
  );
  if (!joined) throw new Error('Cannot see one blob out of two sources');
  timeline.good('one response, first from the upstream, then from a node');
}

function tell(timeline: Timeline, what: string, parts: readonly ServedPart[]): void {
  const total = parts.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  timeline.good(`${what}: ${megabytes(total)}, every digest recomputed`);
  for (const part of parts) {
    const name = part.digest === '' ? 'by tag' : part.digest.slice(0, 19);
    timeline.event(
      `      ${part.what.padEnd(8)} ${name.padEnd(19)} ${megabytes(part.sizeBytes).padStart(9)}` +
        `  from ${part.source.replaceAll(',', ', then ')}`,
    );
  }
}

function demand(
  parts: readonly ServedPart[],
  holds: (part: ServedPart) => boolean,
  what: string,
): void {
  const wrong = parts.find((part) => !holds(part));
  if (parts.length === 0) throw new Error('Cannot go on: nothing was asked of the registry');
  if (wrong !== undefined) {
    throw new Error(`Cannot be: ${wrong.digest} came from ${wrong.source}, and ${what}`);
  }
}
