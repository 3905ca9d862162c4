import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { parseDigest } from '../../../src/oci/digest.ts';
import { parseRegistryHost, parseRepository, parseTag } from '../../../src/oci/name.ts';
import { parseV2Url } from '../../../src/oci/path.ts';
import type { V2Request } from '../../../src/oci/path.ts';
import {
  digestLike,
  digests,
  hostilePieces,
  registries,
  repositories,
  tags,
  titled,
} from './arbitraries.ts';

const DIGEST = digestLike('a');
const SHA512 = digestLike('b', 'sha512');

function read(url: string): V2Request {
  const result = parseV2Url(url);
  if (!result.ok) {
    throw new Error(`${result.status} ${result.code}: ${result.message}`);
  }
  return result.value;
}

function refusal(url: string): string {
  const result = parseV2Url(url);
  return result.ok ? `read as ${JSON.stringify(result.value)}` : `${result.status} ${result.code}`;
}

/** Every byte as %XX, letters too. */
function encodeFully(text: string): string {
  return Array.from(Buffer.from(text), (byte) => `%${byte.toString(16).padStart(2, '0')}`).join('');
}

describe('parseV2Url reads', () => {
  it.each<[string, V2Request]>([
    ['/v2', { target: { kind: 'base' } }],
    ['/v2/', { target: { kind: 'base' } }],
    ['/v2/?ns=quay.io', { target: { kind: 'base' }, ns: 'quay.io' }],
    ['/v2?ns=quay.io', { target: { kind: 'base' }, ns: 'quay.io' }],
    ['/v2/_catalog', { target: { kind: 'catalog' } }],
    ['/v2/_catalog?n=5', { target: { kind: 'catalog' } }],
    [
      '/v2/a/manifests/latest',
      { target: { kind: 'manifest', repository: 'a', reference: { tag: 'latest' } } },
    ],
    [
      `/v2/a/b/manifests/${DIGEST}`,
      { target: { kind: 'manifest', repository: 'a/b', reference: { digest: DIGEST } } },
    ],
    [`/v2/a/b/blobs/${SHA512}`, { target: { kind: 'blob', repository: 'a/b', digest: SHA512 } }],
    [
      `/v2/a/b/referrers/${DIGEST}?artifactType=x`,
      { target: { kind: 'referrers', repository: 'a/b', digest: DIGEST } },
    ],
    ['/v2/a/b/tags/list?n=3&last=x', { target: { kind: 'tags', repository: 'a/b' } }],
    ['/v2/a/blobs/uploads', { target: { kind: 'upload', repository: 'a' } }],
    ['/v2/a/blobs/uploads/', { target: { kind: 'upload', repository: 'a' } }],
    ['/v2/a/blobs/uploads/1-2-3?digest=x', { target: { kind: 'upload', repository: 'a' } }],
  ])('the endpoint %s', (url, request) => {
    expect(read(url)).toEqual(request);
  });

  it.each([
    ['/v2/a/manifests/manifests/x', 'a/manifests'],
    ['/v2/manifests/manifests/manifests/x', 'manifests/manifests'],
    ['/v2/tags/list/tags/list', 'tags/list'],
    ['/v2/blobs/uploads/manifests/x', 'blobs/uploads'],
    [`/v2/a/blobs/b/blobs/${DIGEST}`, 'a/blobs/b'],
    ['/v2/v2/v2/manifests/x', 'v2/v2'],
  ])('a repository that is named like a route in %s', (url, repository) => {
    expect(read(url).target).toMatchObject({ repository });
  });

  it('a percent-encoded path like the plain one', () => {
    expect(read(`/v2/${encodeFully('app')}/manifests/${encodeFully(DIGEST)}`)).toEqual(
      read(`/v2/app/manifests/${DIGEST}`),
    );
    expect(read('/v2/app/%6d%61nifests/x')).toEqual(read('/v2/app/manifests/x'));
  });

  it('every well-formed target', () => {
    const references = fc.oneof(
      tags.map((tag) => ({ text: tag, reference: { tag } })),
      digests.map((digest) => ({ text: String(digest), reference: { digest } })),
    );
    fc.assert(
      fc.property(repositories, references, registries, (repository, reference, ns) => {
        const request = read(`/v2/${repository}/manifests/${reference.text}?ns=${ns}`);
        expect(request.target).toEqual({
          kind: 'manifest',
          repository,
          reference: reference.reference,
        });
        expect(request.registry).toBeUndefined();
      }),
    );
  });
});

describe('parseV2Url takes the namespace', () => {
  const path = '/v2/a/b/manifests/x';

  it.each([
    ['ns=quay.io', 'quay.io'],
    ['ns=docker.io', 'docker.io'],
    ['ns=registry-1.docker.io', 'docker.io'],
    ['ns=index.docker.io', 'docker.io'],
    ['ns=Quay.IO', 'quay.io'],
    ['ns=localhost:5000', 'localhost:5000'],
    ['ns=localhost%3A5000', 'localhost:5000'],
    ['ns=%5B%3A%3A1%5D%3A5000', '[::1]:5000'],
    ['n=1&ns=quay.io&last=z', 'quay.io'],
    ['x=%zz&ns=quay.io', 'quay.io'],
    ['%6es=quay.io', 'quay.io'],
  ])('out of ?%s', (query, ns) => {
    expect(read(`${path}?${query}`).ns).toBe(ns);
  });

  it.each(titled(['', 'NS=quay.io', 'nss=quay.io', 'xns=quay.io', 'n=s', '&&', 'a=ns=quay.io']))(
    'not out of ?%s',
    (_, query) => {
      expect(read(`${path}?${query}`)).not.toHaveProperty('ns');
    },
  );

  it.each(
    titled([
      'ns=',
      'ns',
      'ns=quay.io&ns=quay.io',
      'ns=quay.io&ns=evil.example',
      'ns=quay.io&%6e%73=evil.example',
      'ns=&ns=',
      'ns=http://quay.io',
      'ns=quay.io/app',
      'ns=quay.io%2Fapp',
      'ns=user@quay.io',
      'ns=quay.io%00',
      'ns=quay.io%0d%0aX-Evil:%201',
      'ns=quay.io%',
      'ns=%ff',
      'ns=quay%252eio',
      'ns=+quay.io',
      'ns=..',
      'ns=127.1',
      'ns=0x7f000001',
      'ns=quay.io#x',
      'ns=quay.io?ns=x',
      `ns=${'a.'.repeat(5_000)}io`,
    ]),
  )('and refuses ?%s', (_, query) => {
    expect(refusal(`${path}?${query}`)).toBe('400 NAME_INVALID');
  });

  it('and leaves the path alone beside it', () => {
    expect(read('/v2/quay.io/app/manifests/x?ns=docker.io')).toEqual({
      target: { kind: 'manifest', repository: 'quay.io/app', reference: { tag: 'x' } },
      ns: 'docker.io',
    });
    expect(read('/v2/nginx/manifests/x?ns=docker.io').target).toMatchObject({
      repository: 'nginx',
    });
  });
});

describe('parseV2Url splits off the registry', () => {
  it.each([
    ['quay.io/app', 'quay.io', 'app'],
    ['quay.io/a/b/c', 'quay.io', 'a/b/c'],
    ['localhost/app', 'localhost', 'app'],
    ['localhost:5000/app', 'localhost:5000', 'app'],
    ['localhost%3a5000/app', 'localhost:5000', 'app'],
    ['registry:5000/app', 'registry:5000', 'app'],
    ['[::1]:5000/app', '[::1]:5000', 'app'],
    ['Quay.io/app', 'quay.io', 'app'],
    ['docker.io/nginx', 'docker.io', 'library/nginx'],
    ['registry-1.docker.io/nginx', 'docker.io', 'library/nginx'],
    ['docker.io/grafana/loki', 'docker.io', 'grafana/loki'],
  ])('of %s', (name, registry, repository) => {
    for (const tail of ['manifests/x', `blobs/${DIGEST}`, 'tags/list', `referrers/${DIGEST}`]) {
      const request = read(`/v2/${name}/${tail}`);
      expect(request, tail).toMatchObject({ registry, target: { repository } });
      expect(request, tail).not.toHaveProperty('ns');
    }
  });

  it('only where something is left of the name', () => {
    expect(read('/v2/my.app/manifests/x')).toEqual({
      target: { kind: 'manifest', repository: 'my.app', reference: { tag: 'x' } },
    });
    expect(read('/v2/localhost/tags/list')).toEqual({
      target: { kind: 'tags', repository: 'localhost' },
    });
  });

  it('only where it looks like one', () => {
    expect(read('/v2/library/nginx/tags/list')).toEqual({
      target: { kind: 'tags', repository: 'library/nginx' },
    });
  });

  it.each(
    titled(['a..b/app', 'user@quay.io/app', 'localhost:0/app', 'localhost:/app', '127.1/app']),
  )('and refuses %s', (_, name) => {
    expect(refusal(`/v2/${name}/manifests/x`)).toBe('400 NAME_INVALID');
  });
});

describe('parseV2Url refuses', () => {
  it.each(
    titled([
      '',
      '/',
      'v2/',
      '/v1/',
      '/v2x/a/manifests/x',
      '/v2x',
      '/V2/',
      '//v2/a/manifests/x',
      '/%76%32/',
      '/v2/a',
      '/v2/a/b/c',
      '/v2/a/manifests',
      '/v2/a/tags',
      '/v2/a/tags/',
      '/v2/a/tags/lists',
      '/v2/a/tags/list/',
      '/v2/_catalog/',
      '/v2/a/uploads/x',
      '/v2/a/manifests/x/',
      `/v2/a/blobs/${DIGEST}/`,
      '/v2//',
      'http://127.0.0.1/v2/',
      '*',
    ]),
  )('the unknown route %s', (_, url) => {
    expect(refusal(url)).toBe('404 UNSUPPORTED');
  });

  it.each(
    titled([
      '/v2/manifests/x',
      '/v2//manifests/x',
      '/v2//a/manifests/x',
      '/v2/a//manifests/x',
      '/v2/A/manifests/x',
      '/v2/a_/manifests/x',
      '/v2/a b/manifests/x',
      '/v2/a%20b/manifests/x',
      '/v2/a%2fb/manifests/x',
      '/v2/a%2Fb/manifests/x',
      '/v2/a%5cb/manifests/x',
      '/v2/a\\b/manifests/x',
      '/v2/../manifests/x',
      '/v2/a/../b/manifests/x',
      '/v2/a/./manifests/x',
      '/v2/a/%2e%2e/manifests/x',
      '/v2/a/%2E./manifests/x',
      '/v2/a/manifests/..',
      '/v2/a/manifests/%2e%2e',
      '/v2/a/manifests/..%2f..%2fetc%2fpasswd',
      '/v2/a/blobs/../../etc/passwd',
      '/v2/a/blobs/..%2f..%2fetc',
      '/v2/a/%252e%252e/manifests/x',
      '/v2/a%252fb/manifests/x',
      '/v2/a/manifests/x%2525',
      '/v2/a%00/manifests/x',
      '/v2/a\0/manifests/x',
      '/v2/a/manifests/x%00',
      '/v2/a/manifests/x%0d%0aX-Evil:1',
      '/v2/a\r\n/manifests/x',
      '/v2/a/manifests/x%7f',
      '/v2/a/manifests/x%c2%85',
      '/v2/a%/manifests/x',
      '/v2/a%2/manifests/x',
      '/v2/a%zz/manifests/x',
      '/v2/a%c0%af/manifests/x',
      '/v2/a%ed%a0%80/manifests/x',
      '/v2/a%ff/manifests/x',
      '/v2/%c3%a9/manifests/x',
      '/v2/\u00e9/manifests/x',
      '/v2/a#b/manifests/x',
      '/v2/a;b/manifests/x',
      '/v2/a/blobs/uploads/..',
      '/v2/a/blobs/uploads/%2e%2e%2fx',
      `/v2/${'a'.repeat(256)}/manifests/x`,
      `/v2/${'a'.repeat(10_000)}/manifests/x`,
      `/v2/${'a/'.repeat(5_000)}manifests/x`,
      `/v2/${'%61'.repeat(2_000)}/manifests/x`,
      `/v2/a/blobs/uploads/${'x'.repeat(5_000)}`,
      `/v2/a/manifests/x?${'a'.repeat(20_000)}`,
      `/v2/docker.io/${'a'.repeat(255)}/manifests/x`,
    ]),
  )('the name in %s', (_, url) => {
    expect(refusal(url)).toBe('400 NAME_INVALID');
  });

  it.each(
    titled([
      'sha256:totallywrong',
      'sha256:',
      ':',
      'latest:1',
      `sha256:${'A'.repeat(64)}`,
      `sha256:${'a'.repeat(63)}`,
      `sha256:${'a'.repeat(65)}`,
      `sha384:${'a'.repeat(96)}`,
      `${DIGEST}@x`,
      `${DIGEST},${DIGEST}`,
      `sha256:${'a'.repeat(3_000)}`,
    ]),
  )('the digest %s', (_, text) => {
    expect(refusal(`/v2/a/manifests/${text}`)).toBe('400 DIGEST_INVALID');
    expect(refusal(`/v2/a/blobs/${text}`)).toBe('400 DIGEST_INVALID');
    expect(refusal(`/v2/a/referrers/${text}`)).toBe('400 DIGEST_INVALID');
  });

  it.each(titled(['', 'latest', 'a'.repeat(64)]))('%s where only a digest can stand', (_, text) => {
    expect(refusal(`/v2/a/blobs/${text}`)).toBe('400 DIGEST_INVALID');
    expect(refusal(`/v2/a/referrers/${text}`)).toBe('400 DIGEST_INVALID');
  });

  it.each(titled(['', '-x', '.x', 'a+b', 'a%20b', 'x'.repeat(129), 'a%40b', '%C3%BC']))(
    'the tag %s as one that cannot exist',
    (_, text) => {
      expect(refusal(`/v2/a/manifests/${text}`)).toBe('404 MANIFEST_UNKNOWN');
    },
  );

  it('a bad name before a bad reference', () => {
    expect(refusal('/v2/A/manifests/sha256:x')).toBe('400 NAME_INVALID');
  });

  it('without repeating control characters in the message', () => {
    for (const url of ['/v2/a%0d%0ab/manifests/x', '/v2/a?ns=%0d%0a', '/v2/a/blobs/x%00']) {
      expect(parseV2Url(url)).toMatchObject({
        ok: false,
        message: expect.stringMatching(/^Cannot [ -~]+[^.]$/) as string,
      });
    }
  });
});

describe('parseV2Url on hostile input', () => {
  const hostileUrls = fc
    .tuple(
      fc.constantFrom('/v2/', '/v2/a/', '/v2/quay.io/a/', ''),
      fc.array(fc.oneof(hostilePieces, fc.constant('/')), { maxLength: 8 }),
      fc.constantFrom('', '/manifests/x', `/blobs/${DIGEST}`, '/tags/list', '?ns=quay.io'),
    )
    .map(([head, pieces, tail]) => head + pieces.join('') + tail);

  it('never throws and gives only names that the grammars take', () => {
    fc.assert(
      fc.property(hostileUrls, (url) => {
        const result = parseV2Url(url);
        if (!result.ok) {
          expect([400, 404]).toContain(result.status);
          return;
        }
        const { target, ns, registry } = result.value;
        for (const host of [ns, registry]) {
          expect(host === undefined || parseRegistryHost(host).ok).toBe(true);
        }
        expect(ns !== undefined && registry !== undefined).toBe(false);
        if ('repository' in target) {
          expect(parseRepository(target.repository).ok).toBe(true);
        }
        if ('digest' in target) {
          expect(parseDigest(target.digest).ok).toBe(true);
        }
        if (target.kind === 'manifest' && target.reference.tag !== undefined) {
          expect(parseTag(target.reference.tag).ok).toBe(true);
        }
      }),
      { numRuns: 2_000 },
    );
  });

  it('reads no encoded slash as a separator', () => {
    fc.assert(
      fc.property(repositories, fc.constantFrom('%2f', '%2F', '%252f', '%5c'), (name, slash) => {
        fc.pre(name.includes('/'));
        const encoded = name.replaceAll('/', slash);
        expect(refusal(`/v2/${encoded}/manifests/x`)).toBe('400 NAME_INVALID');
      }),
    );
  });

  it('comes to an end, however long the input is', () => {
    const bombs = ['a-', 'a_', 'a.', 'a/', '%61', '%25', '-', '__', '&ns', 'ns=a&', '%', '.', ':'];
    for (const bomb of bombs) {
      const long = bomb.repeat(100_000);
      const upToLimit = bomb.repeat(Math.floor(4_000 / bomb.length));
      for (const text of [long, upToLimit]) {
        expect(parseV2Url(`/v2/${text}!/manifests/x`).ok).toBe(false);
        expect(parseV2Url(`/v2/a/blobs/${text}!`).ok).toBe(false);
        expect(parseV2Url(`/v2/a/blobs/x?${text}`).ok).toBe(false);
      }
    }
  });
});
