import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { parseChallenges } from '../../../src/oci/challenge.ts';
import type { Challenge } from '../../../src/oci/challenge.ts';
import { textOf } from './arbitraries.ts';

const HUB =
  'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",' +
  'scope="repository:library/nginx:pull"';

/** A challenge as a server writes it, every value in quotes. */
function written({ scheme, params, token68 }: Challenge): string {
  const values = Object.entries(params).map(
    ([name, value]) => `${name}="${value.replaceAll(/["\\]/g, '\\$&')}"`,
  );
  return `${scheme} ${token68 ?? values.join(', ')}`.trim();
}

describe('parseChallenges', () => {
  it.each<[string, string, Challenge[]]>([
    [
      'the challenge of Docker Hub',
      HUB,
      [
        {
          scheme: 'Bearer',
          params: {
            realm: 'https://auth.docker.io/token',
            service: 'registry.docker.io',
            scope: 'repository:library/nginx:pull',
          },
        },
      ],
    ],
    ['a scheme alone', 'Negotiate', [{ scheme: 'Negotiate', params: {} }]],
    ['a token', 'Negotiate YWJj==', [{ scheme: 'Negotiate', params: {}, token68: 'YWJj==' }]],
    [
      'several challenges',
      'Basic realm="a", Bearer realm="b", error="x" , Negotiate, NTLM abc=, Digest realm=c',
      [
        { scheme: 'Basic', params: { realm: 'a' } },
        { scheme: 'Bearer', params: { realm: 'b', error: 'x' } },
        { scheme: 'Negotiate', params: {} },
        { scheme: 'NTLM', params: {}, token68: 'abc=' },
        { scheme: 'Digest', params: { realm: 'c' } },
      ],
    ],
    [
      'the example of the RFC',
      'Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""',
      [
        { scheme: 'Basic', params: { realm: 'simple' } },
        { scheme: 'Newauth', params: { realm: 'apps', type: '1', title: 'Login to "apps"' } },
      ],
    ],
    [
      'commas and equals signs inside quotes',
      'Bearer scope="repository:a:pull,push repository:b:pull", realm="x?a=b, Basic realm=c"',
      [
        {
          scheme: 'Bearer',
          params: {
            scope: 'repository:a:pull,push repository:b:pull',
            realm: 'x?a=b, Basic realm=c',
          },
        },
      ],
    ],
    [
      'escaped backslashes',
      'Basic realm="a\\\\", charset="UTF-8"',
      [{ scheme: 'Basic', params: { realm: 'a\\', charset: 'UTF-8' } }],
    ],
    [
      'spaces around the equals sign and empty elements',
      ' , Basic  realm = "a" ,, , Bearer realm=\t"b",',
      [
        { scheme: 'Basic', params: { realm: 'a' } },
        { scheme: 'Bearer', params: { realm: 'b' } },
      ],
    ],
    ['names in capitals', 'BASIC Realm="A"', [{ scheme: 'BASIC', params: { realm: 'A' } }]],
    ['an empty value', 'Basic realm=""', [{ scheme: 'Basic', params: { realm: '' } }]],
    [
      'a URL without quotes',
      'Bearer realm=https://auth.example/token?x=y,service=s',
      [{ scheme: 'Bearer', params: { realm: 'https://auth.example/token?x=y', service: 's' } }],
    ],
    [
      'parameters without commas',
      'Bearer realm="a" service="b"',
      [{ scheme: 'Bearer', params: { realm: 'a', service: 'b' } }],
    ],
    [
      'the first of a parameter given twice',
      'Bearer realm="a",realm="b"',
      [{ scheme: 'Bearer', params: { realm: 'a' } }],
    ],
    ['nothing out of an empty header', '', []],
    ['nothing out of commas', ' , ,', []],
    ['nothing out of a quoted string', '"Basic realm=a"', []],
    ['nothing out of an open quote', 'Bearer realm="https://auth', []],
    ['nothing out of an escaped last quote', 'Bearer realm="x\\"', []],
    ['nothing out of a parameter without a value', 'Bearer realm="a", service=', []],
    ['nothing out of a split header', 'Basic realm="a\r\nX-Evil: 1"', []],
    ['nothing out of a header with NUL', 'Basic realm="a\0"', []],
    ['nothing out of characters that no header has', 'Basic realm="\u2028"', []],
    ['nothing out of 10 kB', `Bearer realm="${'a'.repeat(10_000)}"`, []],
    [
      'what stands before nonsense',
      'Basic realm="a", Bearer realm="b',
      [{ scheme: 'Basic', params: { realm: 'a' } }],
    ],
  ])('reads %s', (_, header, challenges) => {
    expect(parseChallenges(header)).toEqual(challenges);
  });

  it('reads several headers, and none', () => {
    expect(parseChallenges(['Basic realm="a"', 'Bearer realm="b"'])).toEqual([
      { scheme: 'Basic', params: { realm: 'a' } },
      { scheme: 'Bearer', params: { realm: 'b' } },
    ]);
    expect(parseChallenges(['Basic realm="', 'Bearer realm="b"'])).toEqual([
      { scheme: 'Bearer', params: { realm: 'b' } },
    ]);
    expect(parseChallenges(undefined)).toEqual([]);
    expect(parseChallenges([])).toEqual([]);
  });

  it('takes names of built-in properties for names', () => {
    const [challenge] = parseChallenges('Basic __proto__="x", constructor="y"');
    expect(Object.entries(challenge!.params)).toEqual([
      ['__proto__', 'x'],
      ['constructor', 'y'],
    ]);
    expect(Object.getPrototypeOf(challenge!.params)).toBe(Object.prototype);
  });

  it('keeps to its limits', () => {
    expect(parseChallenges('Basic,'.repeat(100))).toHaveLength(16);
    expect(parseChallenges(Array.from({ length: 100 }, () => 'Basic'))).toHaveLength(16);
    const params = (count: number): string =>
      Array.from({ length: count }, (_, index) => `p${index}=x`).join(', ');
    expect(Object.keys(parseChallenges(`Basic ${params(32)}`)[0]!.params)).toHaveLength(32);
    expect(parseChallenges(`Basic ${params(33)}`)).toEqual([]);
  });

  it('comes to an end and keeps to its limits, however odd the header is', () => {
    for (const bomb of ['a', '\\', '"', 'a=', 'a="\\', ' ', ',', '= ', 'a ', '\\"', 'a,', '=,']) {
      for (const head of ['', 'Basic ', 'Basic a=', 'Basic a="']) {
        const header = (head + bomb.repeat(8_192)).slice(0, 8_190);
        expect(parseChallenges(header).length).toBeLessThanOrEqual(16);
        expect(parseChallenges(`${header}"`).length).toBeLessThanOrEqual(16);
      }
    }
  });

  it('gives only what can be written and read again', () => {
    const pieces = fc.constantFrom(
      'Basic',
      ' ',
      ',',
      '=',
      '"',
      '\\',
      'realm',
      '\t',
      '\u00e9',
      '\r',
    );
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 30 }), (parts) => {
        const challenges = parseChallenges(parts.join(''));
        expect(parseChallenges(challenges.map(written))).toEqual(challenges);
      }),
      { numRuns: 1_000 },
    );
  });

  it('reads what a server has written, also beside others', () => {
    const tokens = textOf('abcxyz0189-_.', { min: 1, max: 10 });
    const values = textOf('abc "\\,=\t\u00e9/:', { min: 0, max: 20 });
    const challenges = fc.record({ scheme: tokens, params: fc.dictionary(tokens, values) });
    fc.assert(
      fc.property(fc.array(challenges, { maxLength: 4 }), (list) => {
        const header = list.map(written).join(', ');
        expect(parseChallenges(header)).toEqual(
          list.map(({ scheme, params }) => ({ scheme, params: { ...params } })),
        );
      }),
    );
  });
});
