import { expect, test } from 'vitest';

import { loadConfig } from '../../../src/config/load.ts';
import { isLoopback, parseAddress, textFormats } from '../../../src/config/text-format.ts';
import type { TextFormat } from '../../../src/config/text-format.ts';

const examples: Readonly<
  Record<TextFormat, { right: readonly string[]; wrong: readonly string[] }>
> = {
  absolutePath: { right: ['/', '/a b/c'], wrong: ['a', './a', '/a\0b', '/a\nb'] },
  address: {
    right: ['127.0.0.1:0', '[::1]:65535', 'node-1.example:7490', 'localhost:1'],
    wrong: [
      ':80',
      'a',
      'a:',
      'a:65536',
      'a:01',
      '::1:80',
      '[a]:80',
      '1.2.3:80',
      'a b:80',
      'a/b:80',
    ],
  },
  cidr: {
    right: ['10.0.0.0/8', '::1/128', '0.0.0.0/0'],
    wrong: ['10.0.0.0', '10.0.0.0/33', '::/129', '10.0.0/8', '10.0.0.0/8/8', '10.0.0.0/-1', 'a/8'],
  },
  dnsName: {
    right: ['salvor.example.com', 'salvor.example.com.', '_peers._tcp.salvor', 'a'],
    wrong: ['a b', 'a..b', '.', '-a', `${'a'.repeat(64)}.b`],
  },
  kubernetesName: {
    right: ['salvor', 'a-1', '1'],
    wrong: ['Salvor', 'a_b', '-a', 'a-', 'a.b', 'a/../b'],
  },
  hostPattern: {
    right: ['*', '*.example.com', 'docker.io', 'localhost:5000', '*.example.com:5000'],
    wrong: ['**', 'a*', '*example.com', '*.', 'https://docker.io', 'docker.io/library'],
  },
  namePattern: {
    right: ['*', 'docker.io/*', 'docker.io/library/nginx', 'localhost:5000/team/*', '[::1]:5000/a'],
    wrong: ['', '/', 'docker.io/', 'docker.io//a', 'https://docker.io', 'a b', 'a/b:tag'],
  },
  staleCause: { right: ['unreachable', '5xx', '429', 'gone'], wrong: ['', '404', '500', 'Gone'] },
  headerName: {
    right: ['Authorization', 'x-jfrog-art-api', 'User-Agent', 'cookie'],
    wrong: ['', 'a b', 'a:', 'a\n', 'Host', 'RANGE', 'accept', 'Connection', 'TE', 'if-none-match'],
  },
  headerValue: {
    right: ['Basic cm9ib3Q6YQ==', 'a\tb', 'é'],
    wrong: ['', ' a', 'a ', 'a\r\nb: c', 'a\0', '\x7f', '…'],
  },
  apiUrl: {
    right: [
      'https://docker.io',
      'http://127.0.0.1:5000',
      'https://[::1]:5000/',
      'https://a/v2',
      'https://harbor.test/v2/hub',
      'https://a/api/docker/hub/v2/',
    ],
    wrong: [
      'docker.io',
      'ftp://a',
      'https://a/v2//b',
      'https://a/b c',
      'https://u@a',
      'https://a?b',
      'https://a#b',
      'https://',
    ],
  },
  registryHost: {
    right: ['docker.io', 'localhost:5000', '127.0.0.1:5000', '[::1]:5000'],
    wrong: ['', 'a:0', 'docker.io/', '1.2.3.4.5', '-a.example', 'a..b', 'a'.repeat(254)],
  },
};

const cases = Object.entries(examples).flatMap(([format, { right, wrong }]) => [
  ...right.map((value) => [format as TextFormat, value, true] as const),
  ...wrong.map((value) => [format as TextFormat, value, false] as const),
]);

test.each(cases)('textFormats.%s of %j is %j', (format, value, expected) => {
  expect(textFormats[format].matches(value)).toBe(expected);
});

test('parseAddress takes brackets off an IPv6 host', () => {
  expect(parseAddress('[fe80::1]:7490')).toEqual({ host: 'fe80::1', port: 7490 });
  expect(parseAddress('node-1:7490')).toEqual({ host: 'node-1', port: 7490 });
});

test.each([
  ['127.0.0.1:1', true],
  ['127.1.2.3:1', true],
  ['[::1]:1', true],
  ['LOCALHOST:1', true],
  ['0.0.0.0:1', false],
  ['[::]:1', false],
  ['127.example:1', false],
  ['localhost', false],
])('isLoopback of %j is %j', (address, expected) => {
  expect(isLoopback(address)).toBe(expected);
});

test('loadConfig takes brackets off an IPv4 address, and leaves those of IPv6', async () => {
  const env = { SALVOR_AGENT_LISTEN: '[10.0.0.1]:7490', SALVOR_AGENT_ADMIN: '[fe80::1]:7491' };
  const { agent } = await loadConfig({ env });
  expect([agent.listen, agent.admin]).toEqual(['10.0.0.1:7490', '[fe80::1]:7491']);
});
