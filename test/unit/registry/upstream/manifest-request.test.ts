import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { digestOf } from '../../../../src/oci/digest.ts';
import { AddressGuard } from '../../../../src/policy/address-guard.ts';
import {
  askForManifest,
  type UpstreamManifestAnswer,
} from '../../../../src/registry/upstream/manifest-request.ts';
import {
  UpstreamClient,
  type UpstreamResponse,
} from '../../../../src/registry/upstream/upstream-client.ts';
import type { AskRequest, Upstream } from '../../../../src/registry/upstream/upstream.ts';
import { expectNoLeaks } from '../../../support/no-leaks.ts';
import { plentyOfBytes } from '../fake-sources.ts';
import { cutBody, responseOf, stalledBody } from './fake-response.ts';
import { WebServer } from './web-server.ts';

expectNoLeaks();

const bytes = Buffer.from('{"schemaVersion":2}');
const digest = digestOf(bytes);
const mediaType = 'application/vnd.oci.image.manifest.v1+json';
const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest, size: 2 };
const image = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, config, layers: [] }));
const date = 'Wed, 01 Jul 2026 10:00:00 GMT';
const good = {
  'content-type': `${mediaType}; charset=utf-8`,
  'content-length': String(bytes.length),
  'docker-content-digest': digest,
  date,
};

afterEach(() => {
  vi.useRealTimers();
});

interface Question {
  readonly method?: 'GET' | 'HEAD';
  readonly byDigest?: boolean;
  readonly maxBytes?: number;
}

/** Asks an upstream that gives these answers in order. */
async function ask(
  answers: readonly UpstreamResponse[],
  question: Question = {},
): Promise<{ answer: UpstreamManifestAnswer; asked: AskRequest[] }> {
  const asked: AskRequest[] = [];
  const rest = [...answers];
  const upstream = {
    ask: async (request: AskRequest) => {
      asked.push(request);
      return rest.shift();
    },
  } as unknown as Upstream;
  const answer = await askForManifest(
    upstream,
    {
      method: question.method ?? 'GET',
      repository: 'a/b',
      reference: question.byDigest === true ? { digest } : { tag: '1' },
      headers: { authorization: 'Bearer x' },
    },
    {
      maxBytes: question.maxBytes ?? 1000,
      stallMs: 5000,
      budget: plentyOfBytes(),
      signal: new AbortController().signal,
    },
  );
  return { answer, asked };
}

const without = (name: keyof typeof good): Record<string, string> =>
  Object.fromEntries(Object.entries(good).filter(([key]) => key !== name));

describe('askForManifest', () => {
  it('askForManifest describes a manifest by the headers of HEAD', async () => {
    const { answer, asked } = await ask([responseOf({ headers: good })], { method: 'HEAD' });
    expect(answer).toEqual({
      kind: 'manifest',
      digest,
      mediaType,
      sizeBytes: bytes.length,
      confirmedAtMs: Date.parse(date),
    });
    expect(asked).toMatchObject([
      { method: 'HEAD', path: '/v2/a/b/manifests/1', headers: { authorization: 'Bearer x' } },
    ]);
    expect(asked[0]?.headers['accept']).toContain(mediaType);
  });

  it('askForManifest asks for a manifest by digest where it has one', async () => {
    const { asked } = await ask([responseOf({ headers: good, body: bytes })], { byDigest: true });
    expect(asked[0]?.path).toBe(`/v2/a/b/manifests/${digest}`);
  });

  it.each(['content-length', 'content-type', 'docker-content-digest'] as const)(
    'askForManifest fetches the manifest itself when HEAD has no %s',
    async (name) => {
      const head = responseOf({ headers: without(name) });
      const { answer, asked } = await ask([head, responseOf({ headers: good, body: bytes })], {
        method: 'HEAD',
      });
      expect(asked.map(({ method }) => method)).toEqual(['HEAD', 'GET']);
      expect(answer).toMatchObject({ kind: 'manifest', digest, sizeBytes: bytes.length });
      expect(head.body.destroyed).toBe(true);
    },
  );

  it('askForManifest fetches the manifest itself when HEAD says that it is empty', async () => {
    const head = responseOf({ headers: { ...good, 'content-length': '0' } });
    const { asked } = await ask([head, responseOf({ headers: good, body: bytes })], {
      method: 'HEAD',
    });
    expect(asked.length).toBe(2);
  });

  it('askForManifest needs no digest header for what it has asked by digest', async () => {
    const headers = without('docker-content-digest');
    const head = await ask([responseOf({ headers })], { method: 'HEAD', byDigest: true });
    expect(head.answer).toMatchObject({ digest });
    const get = await ask([responseOf({ headers, body: bytes })], { byDigest: true });
    expect(get.answer).toMatchObject({ digest, bytes });
  });

  it('askForManifest computes the digest that GET does not say', async () => {
    for (const said of [undefined, 'sha256:nonsense']) {
      const headers = {
        'content-type': mediaType,
        ...(said === undefined ? {} : { 'docker-content-digest': said }),
      };
      const { answer } = await ask([responseOf({ headers, body: image })]);
      expect(answer).toMatchObject({ kind: 'manifest', digest: digestOf(image), bytes: image });
    }
  });

  it('askForManifest takes no document that nobody vouches for and that may have been cut', async () => {
    const signed = 'application/vnd.docker.distribution.manifest.v1+prettyjws';
    const schema1 = Buffer.from('{"schemaVersion":1,"fsLayers":[],"signatures":[]}');
    for (const [named, whole] of [
      [mediaType, image],
      [signed, schema1],
    ] as const) {
      const headers = { 'content-type': named };
      for (const end of [1, whole.length >> 1, whole.length - 1]) {
        const body = whole.subarray(0, end);
        await expect(ask([responseOf({ headers, body })])).rejects.toMatchObject({
          outcome: 'bad_answer',
          message: `The upstream sent no manifest, or not all of it, as ${named}`,
        });
      }
      const { answer } = await ask([responseOf({ headers, body: whole })]);
      expect(answer).toMatchObject({ digest: digestOf(whole), mediaType: named });
    }
  });

  it('askForManifest takes what has its digest as it is, whatever it is', async () => {
    const { answer } = await ask([responseOf({ headers: good, body: bytes })]);
    expect(answer).toMatchObject({ digest, mediaType, bytes });
    const headers = { 'content-type': 'a/b' };
    const odd = await ask([responseOf({ headers, body: bytes })], { byDigest: true });
    expect(odd.answer).toMatchObject({ digest, mediaType: 'a/b', bytes });
  });

  it.each(['GET', 'HEAD'] as const)(
    'askForManifest takes no part of a manifest for an answer to %s',
    async (method) => {
      const headers = { ...good, 'content-range': `bytes 0-18/${bytes.length}` };
      const part = responseOf({ status: 206, headers, body: bytes });
      await expect(ask([part], { method })).rejects.toMatchObject({ outcome: 'bad_answer' });
      expect(part.body.destroyed).toBe(true);
    },
  );

  it('askForManifest takes no encoded manifest, and no length of one', async () => {
    const encoded = gzipSync(image);
    for (const encoding of ['gzip', 'Identity, GZIP']) {
      const headers = {
        'content-type': mediaType,
        'content-encoding': encoding,
        'content-length': String(encoded.length),
        'docker-content-digest': digestOf(image),
      };
      const body = responseOf({ headers, body: encoded });
      await expect(ask([body])).rejects.toMatchObject({
        outcome: 'bad_answer',
        message: 'The upstream encodes the manifest (gzip), unasked',
      });
      expect(body.body.destroyed).toBe(true);
      const plain = {
        'content-type': mediaType,
        'content-encoding': 'identity',
        'docker-content-digest': digestOf(image),
      };
      const { answer, asked } = await ask(
        [responseOf({ headers }), responseOf({ headers: plain, body: image })],
        { method: 'HEAD' },
      );
      expect(asked.map(({ method }) => method)).toEqual(['HEAD', 'GET']);
      expect(answer).toMatchObject({ sizeBytes: image.length });
    }
  });

  it('askForManifest refuses bytes of another digest', async () => {
    const wrong = responseOf({ headers: without('content-length'), body: Buffer.from('{"x":1}') });
    await expect(ask([wrong])).rejects.toMatchObject({ outcome: 'wrong_bytes' });
    const asked = responseOf({ headers: without('content-length'), body: Buffer.from('{"x":1}') });
    await expect(ask([asked], { byDigest: true })).rejects.toMatchObject({
      outcome: 'wrong_bytes',
    });
  });

  it.each(['text/html', 'application/json', 'application/vnd.oci.image.index.v1+json'])(
    'askForManifest believes a document more than a header that calls it %s',
    async (named) => {
      const headers = { 'content-type': named, 'content-length': String(image.length) };
      const { answer } = await ask([responseOf({ headers, body: image })]);
      expect(answer).toMatchObject({ kind: 'manifest', digest: digestOf(image), mediaType });
    },
  );

  it('askForManifest takes no page of a portal for a manifest, by GET or HEAD', async () => {
    const page = Buffer.from('<html>Log in</html>');
    const headers = {
      'content-type': 'text/html',
      'content-length': String(page.length),
      'docker-content-digest': digestOf(page),
    };
    await expect(ask([responseOf({ headers, body: page })])).rejects.toMatchObject({
      outcome: 'bad_answer',
    });
    await expect(
      ask([responseOf({ headers }), responseOf({ headers, body: page })], { method: 'HEAD' }),
    ).rejects.toMatchObject({ outcome: 'bad_answer' });
  });

  it('askForManifest refuses a manifest of no type', async () => {
    const response = responseOf({ headers: without('content-type'), body: bytes });
    await expect(ask([response])).rejects.toMatchObject({ outcome: 'bad_answer' });
  });

  it('askForManifest stops at a manifest that is too large', async () => {
    let sent = 0;
    const endless = new Readable({
      read() {
        sent += 1;
        this.push(Buffer.alloc(1024));
      },
    });
    const response = responseOf({ headers: without('content-length'), body: endless });
    await expect(ask([response], { maxBytes: 10_000 })).rejects.toMatchObject({
      outcome: 'too_long',
    });
    expect(endless.destroyed).toBe(true);
    expect(sent).toBeLessThan(200);
  });

  it('askForManifest tells a body that was cut, politely or not', async () => {
    const half = bytes.subarray(0, 5);
    const cut = responseOf({ headers: good, body: cutBody(half) });
    await expect(ask([cut])).rejects.toMatchObject({ outcome: 'cut' });
    const short = responseOf({ headers: good, body: half });
    await expect(ask([short])).rejects.toMatchObject({ outcome: 'cut' });
  });

  it('askForManifest gives up on a body that stalls or trickles', async () => {
    vi.useFakeTimers();
    const stalled = ask([responseOf({ headers: good, body: stalledBody(bytes.subarray(0, 5)) })]);
    const outcome = stalled.catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(6000);
    expect(await outcome).toMatchObject({ outcome: 'stalled' });

    const trickle = new Readable({ read: () => undefined });
    const interval = setInterval(() => trickle.push(Buffer.from('x')), 200);
    const slow = ask([responseOf({ headers: without('content-length'), body: trickle })]);
    const slowOutcome = slow.catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(8000);
    clearInterval(interval);
    expect(await slowOutcome).toMatchObject({ outcome: 'stalled' });
    expect(vi.getTimerCount()).toBe(0);
  });

  it.each([
    [404, 'missing'],
    [410, 'missing'],
    [401, 'refused'],
    [403, 'refused'],
  ] as const)('askForManifest takes %i for %s', async (status, kind) => {
    const response = responseOf({ status, body: Buffer.from('why') });
    const { answer } = await ask([response], { method: 'GET' });
    expect(answer).toMatchObject({ kind, refusal: { status, body: Buffer.from('why') } });
  });

  it('askForManifest passes no encoded refusal on as text', async () => {
    const headers = {
      'content-type': 'application/json',
      'content-encoding': 'br',
      'www-authenticate': 'Bearer realm="https://auth.test/"',
    };
    const response = responseOf({ status: 401, headers, body: Buffer.from('\x0b\x02') });
    const { answer } = await ask([response]);
    expect(answer).toEqual({
      kind: 'refused',
      refusal: {
        status: 401,
        headers: { 'www-authenticate': 'Bearer realm="https://auth.test/"' },
        body: Buffer.alloc(0),
      },
    });
  });

  it('askForManifest believes no time far in the future', async () => {
    const nowMs = Date.now();
    for (const odd of ['Wed, 01 Jul 2099 10:00:00 GMT', 'yesterday']) {
      const { answer } = await ask([responseOf({ headers: { ...good, date: odd } })], {
        method: 'HEAD',
      });
      if (answer.kind !== 'manifest') throw new Error(answer.kind);
      expect(answer.confirmedAtMs).toBeGreaterThanOrEqual(nowMs);
      expect(answer.confirmedAtMs).toBeLessThanOrEqual(Date.now());
    }
  });

  it('askForManifest does not cost its upstream a connection each time', async () => {
    const server = await WebServer.start((_, response) => {
      response.writeHead(200, good).end(bytes);
    });
    const client = new UpstreamClient(
      { url: server.url, connections: 4, connectMs: 1000, redirectRetryMs: 1000 },
      { guard: new AddressGuard(['127.0.0.0/8']) },
    );
    const upstream = {
      ask: (request: AskRequest, { signal }: { signal: AbortSignal }) =>
        client.send({ ...request, headersTimeoutMs: 5000, signal }),
    } as unknown as Upstream;
    try {
      for (let round = 0; round < 20; round += 1) {
        const method = round % 2 === 0 ? 'HEAD' : 'GET';
        await askForManifest(
          upstream,
          { method, repository: 'a', reference: { tag: '1' }, headers: {} },
          {
            maxBytes: 1000,
            stallMs: 1000,
            budget: plentyOfBytes(),
            signal: new AbortController().signal,
          },
        );
      }
      expect(server.requests.length).toBe(20);
      expect(server.connections).toBeLessThanOrEqual(3);
    } finally {
      await client.close();
      await server.close();
    }
  });
});
