import fc from 'fast-check';

const digest = `sha256:${'a'.repeat(64)}`;

/** Requests that are right, for others to be made of. */
const rightRequests = [
  `GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n`,
  `GET /v2/team/app/manifests/v1?ns=fuzz.test HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n`,
  `HEAD /v2/team/app/manifests/${digest}?ns=fuzz.test HTTP/1.1\r\nHost: x\r\n\r\n`,
  `GET /v2/team/app/blobs/${digest}?ns=fuzz.test HTTP/1.1\r\nHost: x\r\nRange: bytes=1-2\r\n\r\n`,
  `POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc`,
  `PUT /v2/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n`,
];

const oddPieces = [
  '\r\n',
  '\n',
  '\r',
  '\0',
  ' ',
  '\t',
  '%',
  '%2f',
  '%00',
  '..',
  '//',
  '?',
  '#',
  '@',
  ':',
  ';',
  '\r\nContent-Length: -1',
  '\r\nContent-Length: 99999999999999999999',
  '\r\nTransfer-Encoding: chunked',
  '\r\nTransfer-Encoding: x',
  '\r\nExpect: 100-continue',
  '\r\nUpgrade: h2c\r\nConnection: upgrade',
  '\r\nHost: y',
  '\r\nRange: bytes=-',
  '\r\n x: y',
  '\r\nRange: bytes=0-0,2-3,5-',
  '\r\nAuthorization: Bearer',
  'HTTP/9.9',
  'CONNECT',
  'PRI * HTTP/2.0',
  '&ns=',
  'ns=127.0.0.1',
  'sha512:',
  'é',
  '\u{1f4a9}',
];

/** Requests with something put in, taken out, or turned into other bytes, and mere noise. */
export const httpGarbage: fc.Arbitrary<Buffer> = fc.oneof(
  { weight: 4, arbitrary: oddTargets() },
  { weight: 6, arbitrary: altered() },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 2000 }).map((bytes) => Buffer.from(bytes)) },
);

/** Requests that HTTP finds nothing wrong with, for things that do not exist. */
function oddTargets(): fc.Arbitrary<Buffer> {
  const pieces = fc.constantFrom(
    ...[
      '/v2/',
      'team',
      '/',
      'app',
      '/manifests/',
      '/blobs/',
      'v1',
      digest,
      '/tags/list',
      '..',
      '%2f',
    ],
    ...[
      '?ns=fuzz.test',
      '&ns=',
      'ns=localhost',
      '%00',
      '@',
      ':',
      '//',
      'A',
      '_',
      '.',
      '%',
      '=',
      '?',
    ],
  );
  const methods = fc.constantFrom('GET', 'HEAD', 'GET', 'PUT', 'DELETE', 'PATCH', 'OPTIONS');
  const headers = fc.constantFrom(
    ...['', 'Range: bytes=0-1\r\n', 'Range: bytes=9999999-\r\n', 'Range: lines=1-2\r\n'],
    ...[
      'Accept: \r\n',
      'Authorization: Basic !!!\r\n',
      'Content-Length: 0\r\n',
      'TE: trailers\r\n',
    ],
  );
  return fc
    .tuple(methods, fc.array(pieces, { minLength: 1, maxLength: 8 }), headers)
    .map(([method, target, header]) =>
      Buffer.from(
        `${method} /v2/${target.join('')} HTTP/1.1\r\nHost: x\r\n${header}\r\n`,
        'latin1',
      ),
    );
}

function altered(): fc.Arbitrary<Buffer> {
  const alteration = fc.record({
    at: fc.double({ min: 0, max: 1, noNaN: true }),
    removes: fc.nat({ max: 12 }),
    puts: fc.oneof(
      fc.constantFrom(...oddPieces).map((piece) => Buffer.from(piece)),
      fc.uint8Array({ maxLength: 4 }).map((bytes) => Buffer.from(bytes)),
    ),
  });
  return fc
    .tuple(fc.constantFrom(...rightRequests), fc.array(alteration, { minLength: 1, maxLength: 4 }))
    .map(([request, alterations]) => {
      let bytes = Buffer.from(request, 'latin1');
      for (const { at, puts, removes } of alterations) {
        const position = Math.floor(at * bytes.length);
        bytes = Buffer.concat([
          bytes.subarray(0, position),
          puts,
          bytes.subarray(position + removes),
        ]);
      }
      return bytes;
    });
}

const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

/** HTTP/2 frames that nobody would send: any type, any flags, any stream, any length. */
export const http2Garbage: fc.Arbitrary<Buffer> = fc
  .tuple(
    fc.boolean(),
    fc.array(
      fc.record({
        type: fc.nat({ max: 12 }),
        flags: fc.nat({ max: 255 }),
        stream: fc.oneof(fc.nat({ max: 5 }), fc.nat({ max: 2 ** 31 - 1 })),
        payload: fc.uint8Array({ maxLength: 200 }),
        lengthError: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, fc.nat({ max: 2 ** 23 })),
      }),
      { maxLength: 12 },
    ),
  )
  .map(([isPolite, frames]) => {
    const settings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    const parts = frames.map(({ type, flags, stream, payload, lengthError }) => {
      const head = Buffer.alloc(9);
      head.writeUIntBE((payload.length + lengthError) % 2 ** 24, 0, 3);
      head[3] = type;
      head[4] = flags;
      head.writeUInt32BE(stream, 5);
      return Buffer.concat([head, payload]);
    });
    return Buffer.concat([...(isPolite ? [preface, settings] : []), ...parts]);
  });
