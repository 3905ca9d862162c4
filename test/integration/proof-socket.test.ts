import { once } from 'node:events';
import { chmod, mkdir, stat, writeFile } from 'node:fs/promises';
import { request, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import { dirname } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  contentsOf,
  faultImage,
  manifestType,
  pushTo,
  type FaultImage,
} from '../faults/matrix/fault-image.ts';
import type { Digest } from '../../src/oci/digest.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { hostPlatform, type Platform } from '../support/image.ts';
import { MemoryRegistry } from '../support/memory-registry.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { get } from '../support/oci-client.ts';
import { suiteScope } from '../support/test-scope.ts';

expectNoLeaks();

const scope = suiteScope('proof-socket');
const registryName = 'registry.test';
const foreign: Platform = {
  os: 'linux',
  architecture: hostPlatform.architecture === 'arm64' ? 'amd64' : 'arm64',
};

let upstream: MemoryRegistry;
let prover: DirectoryNode;
let holder: DirectoryNode;

beforeAll(async () => {
  upstream = await MemoryRegistry.start(scope());
  ({ prover, holder } = await DirectoryNode.createGroup(scope(), ['prover', 'holder'], {
    upstreams: { [registryName]: { url: upstream.url } },
    registry: {
      policies: [
        { match: `${registryName}/bypassed/*`, mode: 'bypass' },
        { match: `${registryName}/online/*`, access: 'online' },
        { match: `${registryName}/limited/*`, staleOn: ['429'] },
      ],
    },
  }));
  await holder.startAgent();
  await prover.startAgent();
  await prover.startRegistry();
});

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** Asks the prover's registry on its socket for proofs. */
async function prove(
  path: string,
  options: { readonly method?: string; readonly headers?: Readonly<Record<string, string>> } = {},
): Promise<Answer> {
  const outgoing = request({
    socketPath: prover.proveSocket,
    path: `/v2/${path}?ns=${registryName}`,
    agent: false,
    ...options,
  });
  outgoing.end();
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  const { statusCode = 0, headers } = response;
  return { status: statusCode, headers, body: await buffer(response) };
}

/** The holder has all of it, and the upstream once said what its tag names. */
async function held(image: FaultImage, repository = 'team/app'): Promise<string> {
  for (const { digest, bytes } of contentsOf(image)) await holder.hold(digest, bytes);
  await confirmed(image.tag, image.manifest, repository);
  return `${repository}/manifests/${image.tag}`;
}

async function confirmed(
  tag: string,
  manifest: { readonly digest: string; readonly bytes: Buffer },
  repository = 'team/app',
): Promise<void> {
  await holder.observe(`${registryName}/${repository}:${tag}`, {
    digest: manifest.digest as Digest,
    mediaType: manifestType,
    sizeBytes: manifest.bytes.length,
    observedAtMs: Date.now(),
  });
}

describe('the socket for proofs', () => {
  test('salvor registry answers on it from nodes, as if every upstream were dead', async () => {
    const image = faultImage('proved', { layerBytes: 2_000_000 });
    pushTo(upstream, image);
    const path = await held(image);
    const requestsBefore = upstream.requestCount;

    const head = await prove(path, { method: 'HEAD' });
    expect([head.status, head.headers['docker-content-digest']]).toEqual([
      200,
      image.manifest.digest,
    ]);
    expect(head.headers['salvor-source']).toBe('node/holder');
    expect(head.headers['salvor-observed-at']).toBeDefined();
    for (const { digest, bytes } of [image.config, image.layer]) {
      const answer = await prove(`team/app/blobs/${digest}`);
      expect([answer.status, answer.headers['salvor-source']]).toEqual([200, 'node/holder']);
      expect(answer.body.equals(bytes)).toBe(true);
    }
    expect(upstream.requestCount).toBe(requestsBefore);
  });

  test('salvor registry does not answer on it what only the upstream or its memory has', async () => {
    const image = faultImage('remembered', { layerBytes: 1000 });
    pushTo(upstream, image);
    const path = `team/app/manifests/${image.tag}`;
    const headers = { accept: manifestType };
    expect((await get(`${prover.url}/v2/${path}?ns=${registryName}`, { headers })).status).toBe(
      200,
    );

    const byDigest = await prove(`team/app/manifests/${image.manifest.digest}`);
    expect([byDigest.status, byDigest.headers['salvor-source']]).toEqual([503, undefined]);
    expect(byDigest.body.toString()).toContain('counts as dead');
    expect((await prove(path)).status).toBe(503);

    // What one proof has read is no answer to the next.
    for (const { digest, bytes } of contentsOf(image)) await holder.hold(digest, bytes);
    expect((await prove(path)).status).toBe(200);
    await holder.drop(image.manifest.digest);
    expect((await prove(path)).status).toBe(503);
  });

  test('salvor registry keeps to its policies on it', async () => {
    const image = faultImage('policies', { layerBytes: 1000 });
    const answers = [];
    for (const repository of ['bypassed/app', 'online/app', 'limited/app']) {
      const path = await held(image, repository);
      answers.push((await prove(path, { method: 'HEAD' })).status);
    }
    expect(answers).toEqual([404, 503, 503]);
  });

  test('salvor registry shows nothing of proofs in its state, savings and decisions', async () => {
    const image = faultImage('quiet', { layerBytes: 1000 });
    const path = await held(image, 'other.test/app');
    expect((await prove(path)).status).toBe(200);

    const page = async (name: string): Promise<string> =>
      (await get(`http://127.0.0.1:${prover.adminPort}/${name}`)).body.toString();
    expect(JSON.parse(await page('status'))).toMatchObject({
      upstreams: [{ registry: registryName, state: 'up' }],
      totals: { fallbacks: 0, savedRequests: 0 },
      inFlightBytes: 0,
    });
    expect(await page('decisions')).not.toContain(image.tag);
    const metrics = await page('metrics');
    expect(metrics).toContain('salvor_registry_proof_requests_total{kind="manifest",status="200"}');
    expect(metrics).not.toMatch(/salvor_registry_requests_total.*decision="offline_tag"/);
    expect(metrics).not.toMatch(/^salvor_registry_upstream_outages_total\{/m);
    expect(metrics).not.toMatch(/^salvor_registry_fallbacks_total\{/m);
  });

  test('salvor registry takes the word for which platform a tag must be whole there alone', async () => {
    const image = faultImage('foreign', { layerBytes: 1000 });
    const index = indexOf(image, foreign);
    upstream.put({ bytes: index.bytes, mediaType: index.mediaType });
    upstream.tag('foreign', index.digest);
    await holder.hold(index.digest, index.bytes);
    await confirmed('foreign', index);

    const headers = { 'salvor-platform': `${foreign.os}/${foreign.architecture}` };
    const path = 'team/app/manifests/foreign';
    // Nothing in it is for this machine, so nothing more is asked for.
    expect((await prove(path, { method: 'HEAD' })).status).toBe(200);
    expect((await prove(path, { method: 'HEAD', headers })).status).toBe(503);
    for (const { digest, bytes } of contentsOf(image)) await holder.hold(digest, bytes);
    expect((await prove(path, { method: 'HEAD', headers })).status).toBe(200);

    const before = upstream.requestCount;
    const direct = await get(`${prover.url}/v2/${path}?ns=${registryName}`, { headers });
    expect([direct.status, direct.headers['salvor-source']]).toEqual([200, 'upstream']);
    expect(upstream.requestCount).toBeGreaterThan(before);
  });

  test('salvor registry lets nobody but its own user and group at it', async () => {
    expect((await stat(prover.proveSocket)).mode & 0o777).toBe(0o660);
  });

  test('salvor registry serves pulls without it where it cannot be made', async () => {
    const image = faultImage('without', { layerBytes: 1000 });
    pushTo(upstream, image);
    const blocked = `${scope().directory}/no-directory/registry.sock`;
    await mkdir(dirname(dirname(blocked)), { recursive: true });
    await writeFile(dirname(blocked), '');
    await chmod(dirname(blocked), 0o400);
    const { alone } = await DirectoryNode.createGroup(scope(), ['alone'], {
      upstreams: { [registryName]: { url: upstream.url } },
      registry: { proveSocket: blocked },
    });
    await alone.startRegistry();
    const answer = await get(`${alone.url}/v2/team/app/manifests/${image.tag}?ns=${registryName}`);
    expect(answer.status).toBe(200);
  });
});

function indexOf(
  image: FaultImage,
  platform: Platform,
): { digest: string; bytes: Buffer; mediaType: string } {
  const mediaType = 'application/vnd.oci.image.index.v1+json';
  const { digest, bytes: manifest } = image.manifest;
  const entry = { mediaType: manifestType, digest, size: manifest.length, platform };
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests: [entry] }));
  return { digest: upstream.put({ bytes, mediaType }), bytes, mediaType };
}
