import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../../src/oci/digest.ts';
import type { PullRequest } from '../../../../src/registry/pull-request.ts';
import type { Wanted } from '../../../../src/registry/sources/source.ts';
import {
  blobHeaders,
  blobPath,
  readBlobResponse,
} from '../../../../src/registry/upstream/blob-request.ts';
import { responseOf } from './fake-response.ts';

const digest = digestOf(Buffer.from('blob'));
const all: Wanted = { start: 0 };

async function bodyFor(
  options: Parameters<typeof responseOf>[0],
  wanted: Wanted,
): Promise<{ sizeBytes: number; start: number; end: number }> {
  const blob = await readBlobResponse(responseOf(options), wanted);
  if (blob.kind !== 'body') throw new Error(`Cannot go on: ${blob.kind}`);
  return { sizeBytes: blob.body.sizeBytes, ...blob.body.stretch };
}

describe('readBlobResponse', () => {
  it('readBlobResponse takes a whole blob', async () => {
    const response = responseOf({ headers: { 'content-length': '5' }, body: Buffer.from('bytes') });
    const blob = await readBlobResponse(response, all);
    if (blob.kind !== 'body') throw new Error(blob.kind);
    const { body } = blob;
    expect(body).toMatchObject({
      source: 'upstream',
      origin: 'registry.test',
      sizeBytes: 5,
      stretch: { start: 0, end: 4 },
      trusted: true,
    });
    const parts: Buffer[] = [];
    for await (const part of body.chunks) parts.push(part);
    expect(Buffer.concat(parts).toString()).toBe('bytes');
    body.cancel();
    body.cancel();
    expect(response.body.destroyed).toBe(true);
  });

  it('readBlobResponse takes the part that was asked for', async () => {
    const headers = { 'content-range': 'bytes 10-19/100', 'content-length': '10' };
    const part = { sizeBytes: 100, start: 10, end: 19 };
    expect(await bodyFor({ status: 206, headers }, { start: 10, end: 19 })).toEqual(part);
    expect(await bodyFor({ status: 206, headers }, { start: 10 })).toEqual(part);
    const tail = { 'content-range': 'bytes 95-99/100' };
    expect(await bodyFor({ status: 206, headers: tail }, { suffix: 5 })).toEqual({
      sizeBytes: 100,
      start: 95,
      end: 99,
    });
  });

  it('readBlobResponse takes all of a blob for an answer to a range', async () => {
    const headers = { 'content-length': '100' };
    const whole = { sizeBytes: 100, start: 0, end: 99 };
    expect(await bodyFor({ headers }, { start: 10, end: 19 })).toEqual(whole);
    expect(await bodyFor({ headers }, { suffix: 3 })).toEqual(whole);
  });

  it.each([
    ['a part without Content-Range', 206, { 'content-length': '10' }],
    ['a part that starts elsewhere', 206, { 'content-range': 'bytes 11-19/100' }],
    ['a part that starts at zero', 206, { 'content-range': 'bytes 0-99/100' }],
    ['a part of unknown size', 206, { 'content-range': 'bytes 10-19/*' }],
    ['a part beyond the end', 206, { 'content-range': 'bytes 10-100/100' }],
    ['an inverted part', 206, { 'content-range': 'bytes 19-10/100' }],
    ['parts in another unit', 206, { 'content-range': 'lines 10-19/100' }],
    ['several parts', 206, { 'content-type': 'multipart/byteranges; boundary=x' }],
    [
      'a part of another length',
      206,
      { 'content-range': 'bytes 10-19/100', 'content-length': '11' },
    ],
    ['a whole of unknown length', 200, {}],
    ['a whole of a length that is none', 200, { 'content-length': '1e3' }],
    ['compressed bytes', 200, { 'content-length': '5', 'content-encoding': 'gzip' }],
  ])('readBlobResponse refuses %s and lets go of it', async (_, status, headers) => {
    const response = responseOf({ status, headers, body: Buffer.from('bytes') });
    await expect(readBlobResponse(response, { start: 10 })).rejects.toMatchObject({
      name: 'SourceError',
      outcome: 'bad_answer',
    });
    expect(response.body.destroyed).toBe(true);
  });

  it('readBlobResponse tells missing, refused and unsatisfiable apart', async () => {
    for (const [status, kind] of [
      [404, 'missing'],
      [410, 'missing'],
      [401, 'refused'],
      [403, 'refused'],
      [400, 'refused'],
      [416, 'unsatisfiable'],
    ] as const) {
      const response = responseOf({
        status,
        headers: { 'www-authenticate': 'Basic realm="x"', 'set-cookie': 'a=b' },
        body: Buffer.from('{"errors":[]}'),
      });
      const blob = await readBlobResponse(response, all);
      expect(blob.kind).toBe(kind);
      expect(response.body.destroyed).toBe(true);
      if (blob.kind !== 'missing' && blob.kind !== 'refused') continue;
      expect(blob.refusal).toEqual({
        status,
        headers: { 'www-authenticate': 'Basic realm="x"' },
        body: Buffer.from('{"errors":[]}'),
      });
    }
  });

  it('readBlobResponse keeps no header that could not be sent on', async () => {
    const response = responseOf({
      status: 401,
      headers: {
        'www-authenticate': ['Basic realm="a"', 'Bearer realm="\u2014"'],
        'content-type': 'a\nb',
      },
    });
    const blob = await readBlobResponse(response, all);
    expect(blob).toMatchObject({ kind: 'refused', refusal: { headers: {} } });
  });

  it('readBlobResponse reads no more of an error than is worth reading', async () => {
    const response = responseOf({ status: 403, body: Buffer.alloc(10 * 1024 * 1024, 0x20) });
    const blob = await readBlobResponse(response, all);
    if (blob.kind !== 'refused') throw new Error(blob.kind);
    expect(blob.refusal.body.length).toBeLessThanOrEqual(64 * 1024);
  });
});

describe('blobHeaders', () => {
  const request = {
    accept: 'a/b',
    authorization: 'Bearer x',
    userAgent: undefined,
    range: 'bytes=7-',
  };

  it.each<[Wanted, string | undefined]>([
    [{ start: 0 }, undefined],
    [{ start: 0, end: 0 }, 'bytes=0-0'],
    [{ start: 5 }, 'bytes=5-'],
    [{ start: 5, end: 9 }, 'bytes=5-9'],
    [{ suffix: 3 }, 'bytes=-3'],
  ])('blobHeaders asks for %o with the range %s', (wanted, range) => {
    const headers = blobHeaders(request as unknown as PullRequest, wanted);
    expect(headers).toEqual({
      accept: 'a/b',
      authorization: 'Bearer x',
      ...(range === undefined ? {} : { range }),
    });
  });

  it('blobPath names repository and digest', () => {
    expect(blobPath('a/b', digest)).toBe(`/v2/a/b/blobs/${digest}`);
  });
});
