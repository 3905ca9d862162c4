import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { formatReference, parseReference, tagName } from '../../../src/oci/reference.ts';
import {
  digestLike,
  digests,
  hostilePieces,
  registries,
  repositories,
  tags,
  valueOf,
} from './arbitraries.ts';

const DIGEST = digestLike('a');

describe('parseReference', () => {
  it.each([
    ['nginx', 'docker.io/library/nginx:latest'],
    ['nginx:1.27', 'docker.io/library/nginx:1.27'],
    ['grafana/loki', 'docker.io/grafana/loki:latest'],
    ['docker.io/nginx', 'docker.io/library/nginx:latest'],
    ['index.docker.io/nginx', 'docker.io/library/nginx:latest'],
    ['registry-1.docker.io/library/nginx:1', 'docker.io/library/nginx:1'],
    ['quay.io/a', 'quay.io/a:latest'],
    ['quay.io/a/b/c:v1', 'quay.io/a/b/c:v1'],
    ['localhost/app', 'localhost/app:latest'],
    ['localhost:5000/app:x', 'localhost:5000/app:x'],
    ['registry:5000/app', 'registry:5000/app:latest'],
    ['localhost:5000', 'docker.io/library/localhost:5000'],
    ['10.0.0.1:5000/a/b', '10.0.0.1:5000/a/b:latest'],
    ['[::1]:5000/app:x', '[::1]:5000/app:x'],
    ['Registry.Example.com/app', 'registry.example.com/app:latest'],
    [`nginx@${DIGEST}`, `docker.io/library/nginx@${DIGEST}`],
    [`quay.io/a/b:v1@${DIGEST}`, `quay.io/a/b:v1@${DIGEST}`],
    [`localhost:5000/a@${DIGEST}`, `localhost:5000/a@${DIGEST}`],
  ])('reads %s as %s', (text, full) => {
    expect(formatReference(valueOf(parseReference(text)))).toBe(full);
  });

  it('implies no tag beside a digest', () => {
    expect(valueOf(parseReference(`nginx@${DIGEST}`))).toEqual({
      registry: 'docker.io',
      repository: 'library/nginx',
      digest: DIGEST,
    });
  });

  it.each([
    ['nothing', ''],
    ['only a tag', ':latest'],
    ['only a digest', `@${DIGEST}`],
    ['a bare digest', DIGEST],
    ['a bare image id', 'a'.repeat(64)],
    ['only a registry', 'docker.io/'],
    ['an empty tag', 'nginx:'],
    ['an empty digest', 'nginx@'],
    ['two tags', 'nginx:a:b'],
    ['two digests', `nginx@${DIGEST}@${DIGEST}`],
    ['the tag behind the digest', `nginx@${DIGEST}:v1`],
    ['a short digest', 'nginx@sha256:abc'],
    ['a digest of a foreign algorithm', 'nginx@md5:d41d8cd98f00b204e9800998ecf8427e'],
    ['capitals in the repository', 'quay.io/App'],
    ['capitals in a host that does not look like one', 'REGISTRY/app'],
    ['a scheme', 'https://quay.io/app'],
    ['a user', 'user@quay.io/app'],
    ['parent folders', '../../etc/passwd'],
    ['parent folders behind the registry', 'quay.io/../app'],
    ['a double slash', 'quay.io//app'],
    ['a leading slash', '/nginx'],
    ['a space', 'nginx :latest'],
    ['a line break', 'nginx:latest\n'],
    ['NUL', 'nginx\0'],
    ['an encoded slash', 'quay.io/a%2fb'],
    ['a Kelvin sign', '\u212a8s.example/app'],
    ['port 0', 'localhost:0/app'],
    ['a repository of 256 characters', `quay.io/${'a'.repeat(256)}`],
    ['255 characters that library/ makes more', 'a'.repeat(255)],
    ['ten kilobytes', 'a/'.repeat(5_000)],
  ])('refuses %s', (_, text) => {
    expect(parseReference(text).ok).toBe(false);
  });

  it('reads back what formatReference wrote', () => {
    fc.assert(
      fc.property(
        fc.record(
          { registry: registries, repository: repositories, tag: tags, digest: digests },
          { requiredKeys: ['registry', 'repository', 'tag'] },
        ),
        (reference) => {
          // What a plain host "localhost" or a repository of Docker Hub means is tested above.
          fc.pre(reference.registry !== 'docker.io' || reference.repository.includes('/'));
          expect(valueOf(parseReference(formatReference(reference)))).toEqual(reference);
        },
      ),
    );
  });

  it('gives a full reference that reads as itself, or nothing', () => {
    fc.assert(
      fc.property(fc.array(hostilePieces, { maxLength: 5 }), (pieces) => {
        const result = parseReference(pieces.join(''));
        if (result.ok) {
          expect(valueOf(parseReference(formatReference(result.value)))).toEqual(result.value);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('tagName', () => {
  it('joins the three parts', () => {
    expect(tagName('docker.io', 'library/nginx', '1')).toBe('docker.io/library/nginx:1');
  });

  it('equals the full reference of the tag', () => {
    const reference = valueOf(parseReference('nginx:1'));
    expect(tagName(reference.registry, reference.repository, reference.tag!)).toBe(
      formatReference(reference),
    );
  });
});
