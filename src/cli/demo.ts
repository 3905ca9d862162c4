import { parseReference } from '../oci/reference.ts';
import type { RunDemo } from './command.ts';
import { findContainerd } from './demo/containerd-programs.ts';
import type { DemoImage } from './demo/demo-node.ts';
import { renderInstructions } from './demo/instructions.ts';
import { play } from './demo/script.ts';
import { DemoStage } from './demo/stage.ts';
import { renderSummary } from './demo/summary.ts';
import { Timeline } from './demo/timeline.ts';
import { Workspace } from './demo/workspace.ts';

const BUILT_IN: DemoImage = { registry: 'registry.demo', repository: 'team/app', tag: 'v1' };

/**
 * `salvor demo`: an outage from beginning to end on this machine, first without Salvor and then
 * with it. Everything it starts ends with it.
 *
 * @throws when anything does not go as it must
 */
export const runDemo: RunDemo = async (config, context) => {
  const timeline = createTimeline();
  const image = context.image === undefined ? BUILT_IN : parseImage(context.image);
  const found = await findContainerd();
  const programs = 'reason' in found ? undefined : found;
  const nodes =
    'reason' in found
      ? `directory stores (no real containerd: ${found.reason})`
      : `real containerd daemons, version ${found.version}`;
  timeline.plain(`Salvor demo: an outage on this machine. The nodes are ${nodes}.`);
  await using workspace = await Workspace.open({ echo: config.log.level === 'debug' });
  const interrupt = (): void => void workspace.end();
  context.signal.addEventListener('abort', interrupt);
  process.once('SIGHUP', interrupt);
  try {
    context.signal.throwIfAborted();
    const isBuiltIn = context.image === undefined;
    const stage = await DemoStage.open(workspace, { image, isBuiltIn, programs });
    const rows = await play(stage, timeline);
    const seconds = timeline.seconds().toFixed(1);
    timeline.plain('');
    for (const line of renderSummary(rows)) timeline.plain(line);
    timeline.plain('');
    if (context.keep) await keep(stage, { timeline, workspace, layer: largestOf(rows) });
    timeline.plain(`All went as it must, in ${seconds} s. The nodes were ${nodes}.`);
  } catch (error) {
    const failure = workspace.signal.aborted ? new Error('Interrupted') : (error as Error);
    timeline.bad(failure.message);
    timeline.plain(`The demo has failed. The nodes were ${nodes}.`);
    throw failure;
  } finally {
    context.signal.removeEventListener('abort', interrupt);
    process.off('SIGHUP', interrupt);
  }
};

function createTimeline(): Timeline {
  const { stdout } = process;
  return new Timeline({
    write: (text) => void stdout.write(text),
    // https://no-color.org: any value but an empty one.
    colours: stdout.isTTY && (process.env['NO_COLOR'] ?? '') === '',
  });
}

async function keep(
  stage: DemoStage,
  options: { timeline: Timeline; workspace: Workspace; layer: string },
): Promise<void> {
  const { timeline, workspace, layer } = options;
  const { image, upstream } = stage;
  if (!upstream.isAlive) await upstream.start();
  const node = await stage.startNode('e');
  for (const line of renderInstructions({ image, upstream, node, layer })) timeline.plain(line);
  await new Promise<void>((resolve) => {
    if (workspace.signal.aborted) resolve();
    else workspace.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  timeline.plain('');
}

function largestOf(rows: Awaited<ReturnType<typeof play>>): string {
  const parts = rows.flatMap((row) => row.parts ?? []).filter(({ what }) => what === 'blob');
  return parts.toSorted((x, y) => y.sizeBytes - x.sizeBytes)[0]?.digest ?? '';
}

function parseImage(text: string): DemoImage {
  const reference = parseReference(text);
  if (!reference.ok) throw new Error(`Cannot use the image ${text}: ${reference.reason}`);
  const { registry, repository, tag } = reference.value;
  if (tag === undefined) throw new Error(`Cannot use the image ${text}: the demo needs a tag`);
  return { registry, repository, tag };
}
