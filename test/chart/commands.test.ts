import { expect, test } from 'vitest';
import { unknownArguments } from '../support/unknown-arguments.ts';
import { render, valueSets, type Container, type KubeObject } from './render.ts';

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
