import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import {
  looksLikeRegistryHost,
  normalizeRegistry,
  normalizeRepository,
  parseRegistryHost,
  parseRepository,
  parseTag,
} from '../../../src/oci/name.ts';
import {
  hostilePieces,
  registries,
  repositories,
  tags,
  textOf,
  valueOf,
  titled,
} from './arbitraries.ts';

describe('parseRepository', () => {
  it.each(
    titled([
      'nginx',
      'library/nginx',
      'a/b/c/d/e',
      '0',
      'my.project/my_app/my__app/my-app/my---app',
      'manifests/blobs/tags/list',
      'a'.repeat(255),
    ]),
  )('takes %s', (_, name) => {
    expect(valueOf(parseRepository(name))).toBe(name);
  });

  it.each(
    titled([
      '',
      '/',
      '/nginx',
      'nginx/',
      'a//b',
      '.',
      '..',
      'a/../b',
      'a/./b',
      '../../etc/passwd',
      'Nginx',
      '-a',
      'a-',
      '_a',
      'a_',
      'a___b',
      '.a',
      'a.',
      'a..b',
      'a._b',
      'a b',
      'a\0b',
      'a\nb',
      'a\n',
      'a\r\nSet-Cookie: x',
      'a%2fb',
      'a%2Fb',
      'a\\b',
      'a:b',
      'a@b',
      'a?b',
      'a#b',
      'é',
      '\u212a8s',
      'a\u202eb',
      'a'.repeat(256),
      'a'.repeat(10_000),
      'a-'.repeat(5_000),
      'a/'.repeat(5_000),
    ]),
  )('refuses %s', (_, name) => {
    expect(parseRepository(name).ok).toBe(false);
  });

  it('takes every name of the grammar unchanged', () => {
    fc.assert(
      fc.property(repositories, (name) => {
        fc.pre(name.length <= 255);
        expect(valueOf(parseRepository(name))).toBe(name);
      }),
    );
  });

  it('takes nothing with a dangerous character, whatever stands around it', () => {
    fc.assert(
      fc.property(fc.array(hostilePieces, { minLength: 1, maxLength: 6 }), (pieces) => {
        const text = pieces.join('');
        const result = parseRepository(text);
        const isSafe =
          /^[a-z0-9._/-]+$/.test(text) && text.split('/').every((part) => /^[a-z0-9]/.test(part));
        expect(result.ok && !isSafe).toBe(false);
      }),
    );
  });
});

describe('parseTag', () => {
  it.each(titled(['latest', '1', '_', 'V1.2.3', '1.0-alpha_2', 'a..b', 'x'.repeat(128)]))(
    'takes %s',
    (_, tag) => {
      expect(valueOf(parseTag(tag))).toBe(tag);
    },
  );

  it.each(
    titled([
      '',
      '.',
      '..',
      '.hidden',
      '-x',
      'a/b',
      'a:b',
      'a@b',
      'a b',
      'a+b',
      'a%20b',
      'a\n',
      'a\0',
      'ü',
      '../x',
      'x'.repeat(129),
      'x'.repeat(10_000),
    ]),
  )('refuses %s', (_, tag) => {
    expect(parseTag(tag).ok).toBe(false);
  });

  it('takes every tag of the grammar unchanged', () => {
    fc.assert(
      fc.property(tags, (tag) => {
        expect(valueOf(parseTag(tag))).toBe(tag);
      }),
    );
  });
});

describe('parseRegistryHost', () => {
  it.each([
    ['docker.io', 'docker.io'],
    ['localhost', 'localhost'],
    ['localhost:5000', 'localhost:5000'],
    ['registry', 'registry'],
    ['Registry.Example.COM:443', 'registry.example.com:443'],
    ['a-b.c--d.example', 'a-b.c--d.example'],
    ['1password.example', '1password.example'],
    ['123.example', '123.example'],
    ['127.0.0.1', '127.0.0.1'],
    ['255.255.255.255:1', '255.255.255.255:1'],
    ['10.0.0.1:65535', '10.0.0.1:65535'],
    ['[::1]', '[::1]'],
    ['[::1]:5000', '[::1]:5000'],
    ['[2001:DB8:0:0:0:0:0:1]:80', '[2001:db8::1]:80'],
    ['[::ffff:127.0.0.1]', '[::ffff:7f00:1]'],
    [`${'a'.repeat(63)}.example`, `${'a'.repeat(63)}.example`],
  ])('reads %s as %s', (text, host) => {
    expect(valueOf(parseRegistryHost(text))).toBe(host);
  });

  it.each([
    ['nothing', ''],
    ['only a port', ':5000'],
    ['an empty port', 'localhost:'],
    ['port 0', 'localhost:0'],
    ['port 65536', 'localhost:65536'],
    ['a port with a leading zero', 'localhost:080'],
    ['a negative port', 'localhost:-1'],
    ['a port in words', 'localhost:http'],
    ['two ports', 'localhost:1:2'],
    ['a scheme', 'http://docker.io'],
    ['a path', 'docker.io/library'],
    ['a trailing slash', 'docker.io/'],
    ['a user', 'user@docker.io'],
    ['a user with a password', 'user:pw@docker.io'],
    ['a query', 'docker.io?x'],
    ['a fragment', 'docker.io#x'],
    ['a trailing dot', 'docker.io.'],
    ['a leading dot', '.docker.io'],
    ['an empty label', 'docker..io'],
    ['parent folders', '..'],
    ['a label that begins with a hyphen', '-a.example'],
    ['a label that ends with a hyphen', 'a-.example'],
    ['an underscore', 'my_registry.example'],
    ['a label of 64 characters', `${'a'.repeat(64)}.example`],
    ['254 characters', `${'a.'.repeat(126)}aa`],
    ['spaces', 'docker .io'],
    ['a line break', 'docker.io\n'],
    ['a header behind it', 'docker.io\r\nX-Evil: 1'],
    ['NUL', 'docker.io\0.evil.example'],
    ['percent signs', 'docker%2eio'],
    ['letters outside ASCII', 'd\u00f6cker.io'],
    ['a Kelvin sign', '\u212a8s.example'],
    ['a fullwidth dot', 'docker\uff0eio'],
    ['an IPv4 address of one number', '2130706433'],
    ['an IPv4 address of two numbers', '127.1'],
    ['an IPv4 address with a hexadecimal number', '0x7f.0.0.1'],
    ['an IPv4 address that ends in hexadecimal', '127.0.0.0x1'],
    ['an IPv4 address with an octal number', '0177.0.0.1'],
    ['an IPv4 address with a leading zero', '010.0.0.1'],
    ['an IPv4 address beyond 255', '127.0.0.256'],
    ['five numbers', '1.2.3.4.5'],
    ['an IPv6 address without brackets', '::1'],
    ['an IPv6 address with an open bracket', '[::1'],
    ['an IPv6 address with an open bracket and a digit more', '[::11'],
    ['an IPv6 address without its first bracket', '::1]'],
    ['empty brackets', '[]'],
    ['two addresses', '[::1][::1]'],
    ['something behind the bracket', '[::1]x'],
    ['a port without a colon', '[::1]x5000'],
    ['an IPv6 zone', '[fe80::1%25eth0]'],
    ['an IPv6 address of nine groups', '[1:2:3:4:5:6:7:8:9]'],
    ['an IPv4 address in brackets', '[127.0.0.1]'],
    ['a name in brackets', '[localhost]'],
    ['ten kilobytes', 'a.'.repeat(5_000)],
  ])('refuses %s', (_, text) => {
    expect(parseRegistryHost(text).ok).toBe(false);
  });

  it('gives a host that it reads as itself', () => {
    fc.assert(
      fc.property(registries, (text) => {
        const host = valueOf(parseRegistryHost(text));
        expect(valueOf(parseRegistryHost(host))).toBe(host);
      }),
    );
  });

  it('gives only what the URL standard takes for the same host', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          registries,
          fc.array(hostilePieces, { maxLength: 4 }).map((pieces) => pieces.join('')),
          textOf('012.xa:[]-7f', { min: 0, max: 20 }),
        ),
        (text) => {
          const result = parseRegistryHost(text);
          if (result.ok) {
            // Port 80 of http is left away by the URL standard, 443 is not.
            const url = new URL(`http://${result.value}/v2/`);
            expect(url.host).toBe(result.value.replace(/:80$/, ''));
            expect([url.username, url.password, url.pathname]).toEqual(['', '', '/v2/']);
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe('looksLikeRegistryHost', () => {
  it.each(titled(['docker.io', 'localhost', 'registry:5000', '[::1]', '10.0.0.1']))(
    'says yes to %s',
    (_, text) => {
      expect(looksLikeRegistryHost(text)).toBe(true);
    },
  );

  it.each(titled(['', 'library', 'registry', 'localhosts', 'my-app']))(
    'says no to %s',
    (_, text) => {
      expect(looksLikeRegistryHost(text)).toBe(false);
    },
  );
});

describe('normalizeRegistry', () => {
  it.each(['index.docker.io', 'registry-1.docker.io', 'registry.hub.docker.com', 'docker.io'])(
    'names Docker Hub for %s',
    (host) => {
      expect(normalizeRegistry(host)).toBe('docker.io');
    },
  );

  it.each(['quay.io', 'mirror.docker.io', 'docker.io.evil.example', 'docker.io:5000'])(
    'leaves %s alone',
    (host) => {
      expect(normalizeRegistry(host)).toBe(host);
    },
  );

  it('ignores capitals', () => {
    expect(normalizeRegistry('Index.Docker.IO')).toBe('docker.io');
  });
});

describe('normalizeRepository', () => {
  it('puts the names of one segment under library on Docker Hub alone', () => {
    expect(normalizeRepository('docker.io', 'nginx')).toBe('library/nginx');
    expect(normalizeRepository('docker.io', 'grafana/loki')).toBe('grafana/loki');
    expect(normalizeRepository('quay.io', 'nginx')).toBe('nginx');
  });
});
