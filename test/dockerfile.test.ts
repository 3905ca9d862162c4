import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { repositoryRoot } from './support/tools.ts';

test('the Dockerfile takes the very Node with which the tests run', () => {
  const text = readFileSync(join(repositoryRoot, 'Dockerfile'), 'utf8');
  const [, version] = /^ARG NODE_IMAGE=\S+\/node:([\d.]+)-bookworm-slim(?:@sha256:\w+)?$/m.exec(
    text,
  ) ?? ['', 'a tag that moves'];
  const { devDependencies } = JSON.parse(
    readFileSync(join(repositoryRoot, 'package.json'), 'utf8'),
  ) as { devDependencies: Record<string, string> };
  expect(version).toBe(devDependencies['node']);
  expect(text).toContain(`imagetools inspect docker.io/library/node:${version}-bookworm-slim`);
});
