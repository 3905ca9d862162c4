import type { Command } from 'commander';
import { expect, test } from 'vitest';
import { createProgram } from '../../src/cli/program.ts';
import { render, valueSets, type Container, type KubeObject } from './render.ts';

const unused = async (): Promise<never> => Promise.reject(new Error('no command is run here'));
const program = createProgram({
  version: '0.0.0',
  env: {},
  signals: process,
  loaders: { registry: unused, agent: unused, start: unused, demo: unused },
  writeOut: () => undefined,
  writeError: () => undefined,
});

/** What the program would not understand of a container's arguments. */
function unknownArguments(args: readonly string[]): string[] {
  let command: Command = program;
  let free = 0;
  const unknown: string[] = [];
  for (const each of args) {
    const [flag = '', value] = each.split(/=(.*)/s);
    if (each.startsWith('--')) {
      const option = command.options.find(({ long }) => long === flag);
      if (option === undefined || option.required !== (value !== undefined)) unknown.push(each);
      continue;
    }
    const inner = command.commands.find((known) => known.name() === each);
    if (inner !== undefined) command = inner;
    else {
      const argument = command.registeredArguments[free];
      free += 1;
      if (argument?.argChoices?.includes(each) !== true) unknown.push(each);
    }
  }
  // A mandatory option that is left out would be noticed on the node only.
  const left = command.options.filter(
    ({ long, mandatory }) => mandatory && !args.some((each) => each.startsWith(`${long}=`)),
  );
  return [...unknown, ...left.map(({ long }) => `without ${long}`)];
}

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
