import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { chartDirectory, helm } from '../support/helm.ts';
import { unknownArguments } from '../support/unknown-arguments.ts';
import { render, valueSets, valuesFile, type Container, type KubeObject } from './render.ts';

function containersOf({ spec }: KubeObject): readonly Container[] {
  const template = spec?.template?.spec ?? spec?.jobTemplate?.spec.template.spec;
  return [...(template?.initContainers ?? []), ...(template?.containers ?? [])] as Container[];
}

test('unknownArguments notices what is misspelt, missing or too much', () => {
  expect(unknownArguments(['uninstall', 'await', '--namespace=a', '--daemon-set=b'])).toEqual([]);
  expect(unknownArguments(['uninstall', 'await', '--namespace=a'])).toEqual([
    'without --daemon-set',
  ]);
  expect(unknownArguments(['hosts', 'rwite', '--own=1'])).toEqual(['rwite', '--own=1']);
});

test.each(valueSets)('every command with %s is one that the program has', (set) => {
  const containers = render(set).objects.flatMap(containersOf);
  expect(containers.length).toBeGreaterThan(2);
  for (const { args, command, name } of containers) {
    expect(command, name).toEqual(['salvor']);
    expect(unknownArguments(args), `${name}: ${args.join(' ')}`).toEqual([]);
  }
});

/** What is shown after an installation; Helm itself renders that only with a cluster at hand. */
async function notesOf(set: string): Promise<string> {
  const chart = await mkdtemp(join(tmpdir(), 'salvor-notes-'));
  try {
    await cp(chartDirectory, chart, { recursive: true });
    const notes = await readFile(join(chart, 'templates', 'NOTES.txt'), 'utf8');
    await writeFile(join(chart, 'notes.txt'), notes);
    const template = 'notes: {{ tpl (.Files.Get "notes.txt") . | toJson }}\n';
    await writeFile(join(chart, 'templates', 'notes.yaml'), template);
    const only = ['--show-only', 'templates/notes.yaml'];
    const { code, stderr, stdout } = helm(
      ...['template', 'salvor', chart, '--namespace', 'salvor-system', '--values', valuesFile(set)],
      ...only,
    );
    expect([code, stderr]).toEqual([0, '']);
    return (parse(stdout) as { readonly notes: string }).notes;
  } finally {
    await rm(chart, { recursive: true });
  }
}

test.each(valueSets)('the notes with %s name commands that the program has', async (set) => {
  const notes = await notesOf(set);
  const agent = render(set)
    .objects.flatMap(containersOf)
    .find(({ name }) => name === 'agent') as Container;
  const calls = [...notes.matchAll(/^ {2}kubectl .*-- salvor (.+)$/gm)].map((match) => match[1]!);
  expect(calls.length).toBe(2);
  for (const call of calls) expect(unknownArguments(call.split(' ')), call).toEqual([]);
  // The doctor looks from the agent's container at the agent's things, without a flag; and for what is
  // out of sight there, from an image that the node has already.
  expect(calls[0]).toBe('doctor');
  expect(notes).toContain(`--image=${agent['image'] as string} -- salvor doctor --host-root=/host`);
  const { mountPath } = agent.volumeMounts!.find(({ name }) => name === 'containerd-socket')!;
  const socket = /--agent-store-containerd-socket=(\S+)/.exec(calls[1]!)?.[1];
  expect(socket ?? '/run/containerd/containerd.sock').toMatch(new RegExp(`^${mountPath}/\\w+`));
});
