import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { ociErrorBody, parseErrorBody } from '../../../src/oci/error-body.ts';

function parseText(text: string): ReturnType<typeof parseErrorBody> {
  return parseErrorBody(new TextEncoder().encode(text));
}
import { titled } from './arbitraries.ts';

describe('ociErrorBody', () => {
  it('writes the form of the specification', () => {
    expect(JSON.parse(ociErrorBody('BLOB_UNKNOWN', 'No such blob'))).toEqual({
      errors: [{ code: 'BLOB_UNKNOWN', message: 'No such blob' }],
    });
    expect(JSON.parse(ociErrorBody('UNAVAILABLE', 'Later', { asked: 3 }))).toEqual({
      errors: [{ code: 'UNAVAILABLE', message: 'Later', detail: { asked: 3 } }],
    });
  });

  it('is read back by parseErrorBody', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 100 }), fc.jsonValue(), (text, detail) => {
        const message = `Cannot ${text.trim()}.`;
        expect(parseText(ociErrorBody('DENIED', message, detail))).toEqual([
          { code: 'DENIED', message },
        ]);
      }),
    );
  });

  it('throws on a detail that JSON cannot hold', () => {
    expect(() => ociErrorBody('UNKNOWN', 'x', 1n)).toThrow(TypeError);
  });
});

describe('parseErrorBody', () => {
  it('reads several errors and leaves out what says nothing', () => {
    const errors = [
      { code: 'A', message: 'one', detail: { x: 1 } },
      { code: 'B' },
      { message: 'three' },
      { code: 4, message: ['x'] },
      {},
      null,
      'text',
      [],
    ];
    expect(parseText(JSON.stringify({ errors }))).toEqual([
      { code: 'A', message: 'one' },
      { code: 'B', message: '' },
      { code: '', message: 'three' },
    ]);
  });

  it.each(
    titled([
      '',
      'null',
      '5',
      '"errors"',
      '[]',
      '{}',
      '{"errors":null}',
      '{"errors":{}}',
      '{"errors":"x"}',
      '{"errors":[',
      '{"__proto__":{"errors":[{"code":"A"}]}}',
      '<html>502 Bad Gateway</html>',
      '['.repeat(60_000),
    ]),
  )('finds nothing in %s', (_, text) => {
    expect(parseText(text)).toEqual([]);
  });

  it('turns control characters into spaces', () => {
    const errors = [{ code: 'A\r\nB', message: '\u001b[31mred\u0000\u2028end\n' }];
    expect(parseText(JSON.stringify({ errors }))).toEqual([
      { code: 'A  B', message: '[31mred  end' },
    ]);
  });

  it('keeps to its limits', () => {
    const many = { errors: Array.from({ length: 100 }, () => ({ code: 'A' })) };
    expect(parseText(JSON.stringify(many))).toHaveLength(16);
    const long = { errors: [{ code: 'C'.repeat(10_000), message: 'm'.repeat(10_000) }] };
    const [error] = parseText(JSON.stringify(long));
    expect([error!.code.length, error!.message.length]).toEqual([64, 1024]);
    const huge = { errors: [{ code: 'A', message: 'm'.repeat(64 * 1024) }] };
    expect(parseText(JSON.stringify(huge))).toEqual([]);
  });

  it('never throws on any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(parseErrorBody(bytes)).toEqual([]);
      }),
    );
  });

  it('never throws on any JSON and gives only short plain texts', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.jsonValue(), fc.object())), (errors) => {
        for (const error of parseText(JSON.stringify({ errors }))) {
          expect(error.code).not.toMatch(/\p{Cc}/u);
          expect(error.message.length).toBeLessThanOrEqual(1024);
        }
      }),
    );
  });
});
