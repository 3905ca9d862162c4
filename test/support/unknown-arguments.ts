import type { Command } from 'commander';
import { createProgram } from '../../src/cli/program.ts';

const unused = async (): Promise<never> => Promise.reject(new Error('no command is run here'));
const program = createProgram({
  version: '0.0.0',
  env: {},
  signals: process,
  loaders: { registry: unused, agent: unused, start: unused, demo: unused },
  writeOut: () => undefined,
  writeError: () => undefined,
});

/**
 * What the program would not understand of its arguments, flags with their values behind "=".
 *
 * @returns those it does not know, and "without --flag" for what is missing
 */
export function unknownArguments(args: readonly string[]): string[] {
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
  // One that is left out would be noticed on the node only.
  const left = command.options.filter(
    ({ long, mandatory }) => mandatory && !args.some((each) => each.startsWith(`${long}=`)),
  );
  return [...unknown, ...left.map(({ long }) => `without ${long}`)];
}
