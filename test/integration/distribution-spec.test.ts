import { readFile } from 'node:fs/promises';
import { beforeAll, describe, expect, test } from 'vitest';
import { startCluster, type Cluster, type ClusterNode } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { expectOciError } from '../support/expect-oci-error.ts';
import { buildImage, type Image } from '../support/image.ts';
import { sha256 } from '../support/layer.ts';
import { get, head, sendRaw, type GetAnswer, type HeadAnswer } from '../support/oci-client.ts';
import { pushImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('distribution-spec');
const repository = 'team/app';
const registryName = 'registry.test';
const octetStream = 'application/octet-stream';
const nowhere = sha256('bytes that nobody has');

let upstream: DockerRegistry;
let image: Image;
/** By size: one that is checked before it goes out, one that is checked in passing. */
let blobs: Readonly<Record<'small' | 'large', Buffer>>;

/** A range, in terms of the size of the blob, and the bytes that answer it. */
interface RangeCase {
  readonly range: (size: number) => string;
  readonly what: string;
  /** First byte and last byte; undefined: the whole blob with 200. */
  readonly window?: (size: number) => readonly [number, number];
}

const satisfiable: readonly RangeCase[] = [
  { what: 'the first byte', range: () => 'bytes=0-0', window: () => [0, 0] },
  { what: 'a-b', range: () => 'bytes=100-4999', window: () => [100, 4999] },
  {
    what: 'a-',
    range: (size) => `bytes=${Math.floor(size / 2)}-`,
    window: (size) => [Math.floor(size / 2), size - 1],
  },
  { what: '0-', range: () => 'bytes=0-', window: (size) => [0, size - 1] },
  { what: '-n', range: () => 'bytes=-500', window: (size) => [size - 500, size - 1] },
  {
    what: 'the last byte',
    range: (size) => `bytes=${size - 1}-`,
    window: (size) => [size - 1, size - 1],
  },
  {
    what: 'a-b where b is past the end',
    range: (size) => `bytes=${size - 10}-${size + 1000}`,
    window: (size) => [size - 10, size - 1],
  },
  {
    what: '-n where n is more than there is',
    range: (size) => `bytes=-${size + 1000}`,
    window: (size) => [0, size - 1],
  },
  { what: 'several ranges', range: () => 'bytes=0-9,20-29' },
  { what: 'another unit', range: () => 'items=0-9' },
  { what: 'no range at all', range: () => 'bytes=one-two' },
];

const unsatisfiable: readonly Omit<RangeCase, 'window'>[] = [
  { what: 'a- past the end', range: (size) => `bytes=${size}-` },
  { what: 'a-b past the end', range: (size) => `bytes=${size + 5}-${size + 9}` },
  { what: 'an empty suffix', range: () => 'bytes=-0' },
  { what: 'an inverted range', range: () => 'bytes=200-100' },
];

function bytesOf(name: 'small' | 'large'): Buffer {
  return blobs[name];
}

/** Headers that would make other registries answer 304 or encode a body. */
const temptations = {
  'accept-encoding': 'gzip, zstd, br, deflate',
  'if-modified-since': new Date(Date.now() + 3_600_000).toUTCString(),
};

function expectPlain(answer: HeadAnswer): void {
  expect(answer.headers['content-encoding']).toBeUndefined();
  expect(answer.headers['transfer-encoding']).toBeUndefined();
}

function expectRange(answer: GetAnswer, bytes: Buffer, wanted: RangeCase): void {
  const window = wanted.window?.(bytes.length);
  const [first, last] = window ?? [0, bytes.length - 1];
  expect(answer.status).toBe(window === undefined ? 200 : 206);
  expect(answer.headers['content-range']).toBe(
    window === undefined ? undefined : `bytes ${first}-${last}/${bytes.length}`,
  );
  expect(answer.headers['content-length']).toBe(String(last - first + 1));
  expect(sha256(answer.body)).toBe(sha256(bytes.subarray(first, last + 1)));
  expectPlain(answer);
}

async function holdEverything(node: ClusterNode): Promise<void> {
  await node.containerd.pull(`${registryName}/${repository}:v1`);
}

/** @returns bytes that the agent of a node has sent so far */
async function sentBytes(node: ClusterNode): Promise<number> {
  const answer = await get(`http://127.0.0.1:${node.agentAdminPort}/metrics`);
  return Number(/^salvor_agent_sent_bytes_total (\d+)$/m.exec(answer.body.toString())?.[1]);
}

/** @returns bytes that a holder sends for the last ten of the large blob */
async function costOfTheEnd(asker: ClusterNode, holder: ClusterNode): Promise<number> {
  const before = await sentBytes(holder);
  const url = `${asker.url}/v2/${repository}/blobs/${sha256(bytesOf('large'))}`;
  const answer = await get(url, { range: 'bytes=-10' });
  expectRange(answer, bytesOf('large'), {
    what: '',
    range: () => '',
    window: (size) => [size - 10, size - 1],
  });
  expect(answer.headers['salvor-source']).toBe(`node/${holder.name}`);
  return (await sentBytes(holder)) - before;
}

async function startNodes(names: readonly string[], agent: object = {}): Promise<Cluster> {
  return startCluster(scope(), {
    nodes: names,
    upstreams: { [registryName]: { url: upstream.url } },
    registry: { defaultUpstream: registryName },
    agent,
  });
}

/** What must hold whoever gives the bytes. */
function describePulls(place: {
  readonly node: () => ClusterNode;
  readonly source: string | RegExp;
  /** Of what nobody has: the upstream's word, or the upstream's failure. */
  readonly absent: { readonly status: number; readonly manifest: string; readonly blob: string };
}): void {
  const url = (path: string): string => `${place.node().url}/v2/${repository}/${path}`;

  test('GET /v2/ answers 200', async () => {
    expect(await get(`${place.node().url}/v2/`)).toMatchObject({ status: 200 });
  });

  test.each(['v1', 'digest'])('a manifest by %s is exact in HEAD and GET', async (how) => {
    const reference = how === 'digest' ? image.digest : how;
    const headers = { ...temptations, 'if-none-match': `"${image.digest}"` };
    const described = await head(url(`manifests/${reference}`), { headers });
    const fetched = await get(url(`manifests/${reference}`), { headers });

    for (const answer of [described, fetched]) {
      expect(answer).toMatchObject({
        status: 200,
        headers: {
          'content-type': image.mediaType,
          'content-length': String(image.size),
          'docker-content-digest': image.digest,
        },
      });
      expectPlain(answer);
    }
    expect(fetched.body.equals(image.manifest)).toBe(true);
  });

  test.each(['small', 'large'] as const)('a %s blob is exact in HEAD and GET', async (name) => {
    const digest = sha256(bytesOf(name));
    const headers = { ...temptations, 'if-none-match': `"${digest}"` };
    const described = await head(url(`blobs/${digest}`), { headers });
    const fetched = await get(url(`blobs/${digest}`), { headers });

    for (const answer of [described, fetched]) {
      expect(answer).toMatchObject({
        status: 200,
        headers: {
          'content-type': octetStream,
          'content-length': String(bytesOf(name).length),
          'docker-content-digest': digest,
          'accept-ranges': 'bytes',
          'salvor-source': expect.stringMatching(place.source) as string,
        },
      });
      expectPlain(answer);
    }
    expect(sha256(fetched.body)).toBe(digest);
  });

  test('HEAD sends no byte of a body', async () => {
    for (const path of ['manifests/v1', `blobs/${sha256(bytesOf('small'))}`, `blobs/${nowhere}`]) {
      const request = `HEAD /v2/${repository}/${path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n`;
      const answer = await sendRaw(place.node().registryPort, request);
      expect(answer.indexOf('\r\n\r\n'), answer).toBe(answer.length - 4);
    }
  });

  test('ns names the registry and is echoed', async () => {
    const answer = await get(`${url(`manifests/v1`)}?ns=${registryName}`);
    expect(answer.status).toBe(200);
    expect(answer.headers['oci-namespace']).toBe(registryName);
  });

  test('the registry may stand in the path', async () => {
    const base = `${place.node().url}/v2/${registryName}/${repository}`;
    const answer = await get(`${base}/manifests/${image.digest}`);
    expect(answer.status).toBe(200);
    expect(answer.body.equals(image.manifest)).toBe(true);
  });

  test.each(satisfiable)('a range is answered: $what', async (wanted) => {
    for (const bytes of [bytesOf('small'), bytesOf('large')]) {
      const range = wanted.range(bytes.length);
      const answer = await get(url(`blobs/${sha256(bytes)}`), { range, headers: temptations });
      expectRange(answer, bytes, wanted);
    }
  });

  test.each(unsatisfiable)('a range is refused: $what', async ({ range, what }) => {
    for (const bytes of [bytesOf('small'), bytesOf('large')]) {
      const answer = await get(url(`blobs/${sha256(bytes)}`), { range: range(bytes.length) });
      expect(answer.status).toBe(416);
      expectOciError(answer, { status: 416, code: 'SIZE_INVALID' });
      // docker-registry does not say how long the blob is, nor is anybody asked in vain.
      const said = answer.headers['content-range'];
      const isSizeKnown = place.source !== 'upstream' && what.endsWith('past the end');
      expect(said).toBe(isSizeKnown ? `bytes */${bytes.length}` : undefined);
    }
  });

  test('a manifest is not to be had as a blob, nor a blob as a manifest', async () => {
    const asBlob = url(`blobs/${image.digest}`);
    expectOciError(await get(asBlob), { status: 404, code: 'BLOB_UNKNOWN' });
    expect(await head(asBlob)).toMatchObject({ status: 404 });
    for (const name of ['small', 'large'] as const) {
      // docker-registry itself says 500 to this, not 404.
      const answer = await get(url(`manifests/${sha256(bytesOf(name))}`));
      expectOciError(answer, { status: 503, code: 'UNAVAILABLE' });
    }
  });

  test('what nobody has is refused with a reason', async () => {
    const { status, manifest, blob } = place.absent;
    for (const path of [`manifests/${nowhere}`, 'manifests/no-such-tag']) {
      expectOciError(await get(url(path)), { status, code: manifest });
      expect(await head(url(path))).toMatchObject({ status });
    }
    expectOciError(await get(url(`blobs/${nowhere}`)), { status, code: blob });
    expectOciError(await get(url(`blobs/${nowhere}`), { range: 'bytes=0-1' }), {
      status,
      code: blob,
    });
    expect(await head(url(`blobs/${nowhere}`))).toMatchObject({ status });
    const elsewhere = `${place.node().url}/v2/no/such/repository/manifests/v1`;
    expectOciError(await get(elsewhere), { status, code: manifest });
  });

  test.each([
    { path: 'manifests/sha256:totallywrong', status: 400, code: 'DIGEST_INVALID' },
    { path: 'blobs/sha256:totallywrong', status: 400, code: 'DIGEST_INVALID' },
    { path: `blobs/sha256:${'A'.repeat(64)}`, status: 400, code: 'DIGEST_INVALID' },
    { path: 'blobs/md5:d41d8cd98f00b204e9800998ecf8427e', status: 400, code: 'DIGEST_INVALID' },
    { path: 'blobs/v1', status: 400, code: 'DIGEST_INVALID' },
    { path: 'manifests/.v1', status: 404, code: 'MANIFEST_UNKNOWN' },
    { path: `manifests/${'a'.repeat(129)}`, status: 404, code: 'MANIFEST_UNKNOWN' },
    { path: 'tags/list', status: 404, code: 'UNSUPPORTED' },
    { path: `referrers/${nowhere}`, status: 404, code: 'UNSUPPORTED' },
  ])('is refused: $path', async ({ path, status, code }) => {
    expectOciError(await get(url(path)), { status, code });
    expect(await head(url(path))).toMatchObject({ status });
  });
}

beforeAll(async () => {
  upstream = await startDockerRegistry(scope());
  image = await buildImage({
    directory: scope().directory,
    layers: [
      { randomBytes: 50_000, seed: 'small' },
      { randomBytes: 3_000_000, seed: 'large' },
    ],
  });
  await pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, image);
  const files = image.blobs.flatMap((blob) => ('path' in blob ? [blob.path] : []));
  const [small, large] = await Promise.all(files.map((path) => readFile(path)));
  blobs = { small: small!, large: large! };
});

describe('the distribution specification', () => {
  let cluster: Cluster;
  let slow: Cluster;

  beforeAll(async () => {
    cluster = await startNodes(['holder', 'asker', 'fresh']);
    await holdEverything(cluster.node('holder'));
    // Too slow to have hashed the large blob while the tests run.
    const integrity = { bytesPerSecond: 65_536 };
    slow = await startNodes(['slow-holder', 'slow-asker'], { integrity });
    await holdEverything(slow.node('slow-holder'));
  });

  describe('while the registry is up', () => {
    describePulls({
      node: () => cluster.node('asker'),
      source: 'upstream',
      absent: { status: 404, manifest: 'MANIFEST_UNKNOWN', blob: 'BLOB_UNKNOWN' },
    });
  });

  describe('while only a node has the image', () => {
    beforeAll(async () => {
      await upstream.kill('SIGKILL');
    });

    describePulls({
      node: () => cluster.node('fresh'),
      source: 'node/holder',
      absent: { status: 503, manifest: 'UNAVAILABLE', blob: 'UNAVAILABLE' },
    });

    test('a node that has hashed its copy sends no more of it than asked for', async () => {
      const { length } = bytesOf('large');
      const cost = await waitFor(async () => {
        const bytes = await costOfTheEnd(cluster.node('fresh'), cluster.node('holder'));
        return bytes < length ? bytes : undefined;
      });
      expect(cost).toBe(10);
    });
  });

  describe('while only a node has the image and has not hashed it', () => {
    test('a range waits until the node has hashed its copy, and costs no more', async () => {
      const cost = await costOfTheEnd(slow.node('slow-asker'), slow.node('slow-holder'));
      expect(cost).toBe(10);
    });

    test.each(satisfiable)('a range is answered: $what', async (wanted) => {
      const bytes = bytesOf('large');
      const url = `${slow.node('slow-asker').url}/v2/${repository}/blobs/${sha256(bytes)}`;
      const answer = await get(url, { range: wanted.range(bytes.length) });
      expectRange(answer, bytes, wanted);
      expect(answer.headers['salvor-source']).toBe('node/slow-holder');
    });
  });
});
