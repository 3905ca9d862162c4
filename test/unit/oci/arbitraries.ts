import fc from 'fast-check';

import { parseDigest } from '../../../src/oci/digest.ts';
import type { Digest } from '../../../src/oci/digest.ts';
import type { Result } from '../../../src/oci/result.ts';

const LOWER_ALNUM = 'abcdefghijklmnopqrstuvwxyz0123456789';
const ALNUM = `${LOWER_ALNUM}ABCDEFGHIJKLMNOPQRSTUVWXYZ`;

/** Text made of the characters of `alphabet`, with `min` to `max` of them. */
export function textOf(
  alphabet: string,
  options: { min: number; max: number },
): fc.Arbitrary<string> {
  return fc.string({
    unit: fc.constantFrom(...Array.from(alphabet)),
    minLength: options.min,
    maxLength: options.max,
  });
}

/** The value of a reading that has to succeed. */
export function valueOf<T>(result: Result<T>): T {
  if (!result.ok) {
    throw new Error(`Cannot take the value: ${result.reason}`);
  }
  return result.value;
}

/** Rows for a table of tests whose titles stay short and printable, however odd the text is. */
export function titled<T extends string | undefined>(texts: readonly T[]): [string, T][] {
  return texts.map((text) => {
    const title = text === undefined ? 'undefined' : JSON.stringify(text);
    return [title.length > 60 ? `${title.slice(0, 50)}… (${title.length})` : title, text];
  });
}

/** A digest that is right in form: one character over and over. */
export function digestLike(hexCharacter: string, algorithm = 'sha256'): Digest {
  const chars = algorithm === 'sha256' ? 64 : 128;
  return valueOf(parseDigest(`${algorithm}:${hexCharacter.repeat(chars)}`));
}

/** Digests of both algorithms. */
export const digests: fc.Arbitrary<Digest> = fc
  .constantFrom(['sha256', 64] as const, ['sha512', 128] as const)
  .chain(([algorithm, chars]) =>
    textOf('0123456789abcdef', { min: chars, max: chars }).map((hex) =>
      valueOf(parseDigest(`${algorithm}:${hex}`)),
    ),
  );

const components: fc.Arbitrary<string> = fc
  .array(
    fc.tuple(
      fc.constantFrom('.', '_', '__', '-', '--', '---'),
      textOf(LOWER_ALNUM, { min: 1, max: 6 }),
    ),
    { maxLength: 2 },
  )
  .chain((rest) =>
    textOf(LOWER_ALNUM, { min: 1, max: 8 }).map((first) => first + rest.flat().join('')),
  );

/** Repository names by the grammar, well below its limit. */
export const repositories: fc.Arbitrary<string> = fc
  .array(components, { minLength: 1, maxLength: 5 })
  .map((parts) => parts.join('/'));

/** Tags by the grammar, of every length. */
export const tags: fc.Arbitrary<string> = fc
  .tuple(textOf(`${ALNUM}_`, { min: 1, max: 1 }), textOf(`${ALNUM}_.-`, { min: 0, max: 127 }))
  .map((parts) => parts.join(''));

const ports: fc.Arbitrary<string> = fc.oneof(
  fc.constant(''),
  fc.integer({ min: 1, max: 65_535 }).map((port) => `:${port}`),
);

const labels: fc.Arbitrary<string> = fc
  .tuple(textOf('abcxyz', { min: 1, max: 1 }), textOf(LOWER_ALNUM, { min: 0, max: 8 }))
  .map((parts) => parts.join(''));

/** Registry hosts in the form that reading them gives: DNS names, IPv4 and IPv6 addresses. */
export const registries: fc.Arbitrary<string> = fc
  .tuple(
    fc.oneof(
      fc.constantFrom('docker.io', 'localhost', '[::1]', '[2001:db8::7]'),
      fc.ipV4(),
      fc.array(labels, { minLength: 2, maxLength: 4 }).map((parts) => parts.join('.')),
    ),
    ports,
  )
  .map((parts) => parts.join(''));

/** Pieces that attackers put into paths and names. */
export const hostilePieces: fc.Arbitrary<string> = fc.oneof(
  fc.constantFrom(
    '..',
    '.',
    '/',
    '//',
    '%2F',
    '%2f',
    '%5c',
    '\\',
    '%2e%2e',
    '%252e%252e',
    '%252F',
    '%00',
    '\0',
    '%0d%0a',
    '\r\n',
    '%',
    '%zz',
    '%c0%af',
    '%ed%a0%80',
    'é',
    '\u212a',
    '\u2024\u2024',
    '\uff0f',
    '\ud800',
    '?',
    '#',
    '&ns=',
    '@',
    ':',
    '::',
    'sha256:',
    'manifests',
    'blobs',
    'uploads',
    'tags/list',
    'v2',
    'localhost',
    'docker.io',
    '127.0.0.1',
    '[::1]',
  ),
  fc.string({ unit: 'binary', maxLength: 6 }),
  textOf(`${ALNUM}/.:-_%`, { min: 1, max: 12 }),
);
