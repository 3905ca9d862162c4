import { parseReference } from '../oci/reference.ts';
import type { RunDemo } from './command.ts';
import { findContainerd } from './demo/containerd-daemon.ts';
import { DemoStage } from './demo/stage.ts';
import type { DemoImage } from './demo/demo-node.ts';
import { Timeline } from './demo/timeline.ts';
import { play } from './demo/script.ts';
import { Workspace } from './demo/workspace.ts';

const BUILT_IN: DemoImage = { registry: 'registry.demo', repository: 'team/app', tag: 'v1' };

/**
 * `salvor demo`: an outage from beginning to end on this machine, first without Salvor and then
 * with it.
 *
 * @throws when anything does not go as it must
 */
export const runDemo: RunDemo = async (_config, context) => {
  const { stdout } = process;
  const timeline = new Timeline({
    write: (text) => void stdout.write(text),
    colours: stdout.isTTY && process.env['NO_COLOR'] === undefined,
  });
  const programs = await findContainerd();
  const nodes =
    programs === undefined
      ? 'directory stores, since there is no root or no containerd here'
      : `real containerd daemons, version ${programs.version}`;
  timeline.plain(`Salvor demo. The nodes are ${nodes}.`);
  await using workspace = await Workspace.open();
  const image = context.image === undefined ? BUILT_IN : imageOf(context.image);
  const stage = await DemoStage.open(workspace, {
    image,
    isBuiltIn: context.image === undefined,
    programs,
  });
  const interrupted = new Promise<never>((_resolve, reject) => {
    const stop = (): void => reject(new Error('Interrupted'));
    if (context.signal.aborted) stop();
    else context.signal.addEventListener('abort', stop, { once: true });
  });
  await Promise.race([play(stage, timeline), interrupted]);
  if (context.keep) {
    for (const line of await stage.instructions()) timeline.plain(line);
    await interrupted.catch(() => undefined);
  }
  timeline.plain(
    `\nEvery pull that had to succeed did, in ${timeline.seconds().toFixed(1)} s, ` +
      `and every digest was recomputed. The nodes were ${nodes}.`,
  );
};

function imageOf(text: string): DemoImage {
  const reference = parseReference(text);
  if (!reference.ok) throw new Error(`Cannot use the image ${text}: ${reference.reason}`);
  const { registry, repository, tag } = reference.value;
  if (tag === undefined) throw new Error(`Cannot use the image ${text}: the demo needs a tag`);
  return { registry, repository, tag };
}
