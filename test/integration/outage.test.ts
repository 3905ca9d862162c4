import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { beforeAll, describe, expect, test } from 'vitest';
import { runWhy } from '../../src/cli/why.ts';
import type { Config } from '../../src/config/schema.ts';
import {
  contentsOf,
  faultImage,
  manifestType,
  pushTo,
  type FaultImage,
} from '../faults/matrix/fault-image.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { startFaultProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { MemoryRegistry } from '../support/memory-registry.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { get, type GetAnswer } from '../support/oci-client.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

expectNoLeaks();

const scope = suiteScope('outage');
const registryName = 'registry.test';
const mebibyte = 1024 ** 2;
const inFlightBytes = 16 * mebibyte;
const shareBytes = mebibyte / 2;

let upstream: MemoryRegistry;
let proxy: FaultProxy;
/** The one that is asked, and the one that has the image. */
let asked: DirectoryNode;
let holder: DirectoryNode;

beforeAll(async () => {
  upstream = await MemoryRegistry.start(scope());
  proxy = await startFaultProxy(scope(), { targetPort: upstream.port });
  ({ asked, holder } = await DirectoryNode.createGroup(scope(), ['asked', 'holder'], {
    upstreams: { [registryName]: { url: proxy.url } },
    registry: { budgets: { probeIntervalMs: 200 }, limits: { inFlightBytes } },
  }));
  await holder.startAgent();
  await asked.startAgent();
  await asked.startRegistry();
});

const urlOf = (path: string): string => `${asked.url}/v2/team/app/${path}?ns=${registryName}`;

async function pullAll(image: FaultImage): Promise<readonly GetAnswer[]> {
  const headers = { accept: manifestType };
  const answers = [await get(urlOf(`manifests/${image.tag}`), { headers })];
  for (const { digest } of [image.config, image.layer]) {
    answers.push(await get(urlOf(`blobs/${digest}`)));
  }
  return answers;
}

/** The samples whose name begins like this, by name and labels. */
async function metrics(prefix: string): Promise<Readonly<Record<string, number>>> {
  const { body } = await get(`http://127.0.0.1:${asked.adminPort}/metrics`);
  const lines = body.toString().split('\n');
  return Object.fromEntries(
    lines
      .filter((line) => line.startsWith(`salvor_registry_${prefix}`))
      .map((line) => [
        line.slice('salvor_registry_'.length, line.lastIndexOf(' ')),
        Number(line.slice(line.lastIndexOf(' ') + 1)),
      ]),
  );
}

async function status(): Promise<unknown> {
  const { body } = await get(`http://127.0.0.1:${asked.adminPort}/status`);
  return JSON.parse(body.toString());
}

const logLine = (message: string): Promise<Record<string, unknown>> =>
  waitFor(() => {
    const line = asked.registry.lines().find(({ text }) => text.includes(`"msg":"${message}"`));
    return line && (JSON.parse(line.text) as Record<string, unknown>);
  });

describe('an outage', () => {
  test('salvor registry shows an outage, what it saved in it, and its end', async () => {
    const image = faultImage('outage', { layerBytes: 2 * mebibyte });
    pushTo(upstream, image);
    expect((await pullAll(image)).map((answer) => answer.status)).toEqual([200, 200, 200]);
    for (const { digest, bytes } of contentsOf(image)) await holder.hold(digest, bytes);
    expect(await metrics('upstream_outage')).toEqual({
      'upstream_outage{registry="registry.test"}': 0,
    });

    const beganAtMs = Date.now();
    await proxy.setMode({ kind: 'refuse' });
    const saved = await pullAll(image);
    expect(saved.map((answer) => answer.status)).toEqual([200, 200, 200]);
    expect(saved.at(-1)?.body.equals(image.layer.bytes)).toBe(true);

    const shown = await metrics('upstream_outage');
    expect(shown).toMatchObject({
      'upstream_outage{registry="registry.test"}': 1,
      'upstream_outages_total{registry="registry.test",cause="refused"}': 1,
    });
    const startName = 'upstream_outage_start_timestamp_seconds{registry="registry.test"}';
    const sinceMs = (shown[startName] ?? 0) * 1000;
    expect(sinceMs).toBeGreaterThanOrEqual(beganAtMs);
    expect(sinceMs).toBeLessThanOrEqual(Date.now());
    const savedMetrics = {
      'saved_requests_total{registry="registry.test",kind="manifest"}': 1,
      'saved_requests_total{registry="registry.test",kind="blob"}': 2,
    };
    expect(await metrics('saved_requests_total')).toEqual(savedMetrics);
    expect(await metrics('fallbacks_total')).toEqual({ 'fallbacks_total{cause="refused"}': 3 });
    const since = new Date(sinceMs).toISOString();
    expect(await status()).toMatchObject({
      upstreams: [
        { registry: registryName, state: 'outage', since, cause: 'refused', savedRequests: 3 },
      ],
      totals: { fallbacks: 3, savedRequests: 3 },
      inFlightBytes: 0,
    });
    const admin = `127.0.0.1:${asked.adminPort}`;
    const registry = { admin } as Config['registry'];
    const why = await runWhy({ registry }, { about: image.layer.digest, json: false });
    expect(why).toContain('answered 200 (peer) from node/holder');
    expect(why).toContain('instead of its upstream: refused');
    const begins = await logLine('upstream outage begins');
    expect(begins).toMatchObject({ registry: registryName, since, cause: 'refused' });

    await proxy.setMode({ kind: 'pass' });
    const over = await logLine('upstream outage is over');
    expect(over).toMatchObject({
      registry: registryName,
      since,
      cause: 'refused',
      savedRequests: 3,
    });
    expect(over['durationMs']).toBeGreaterThan(0);
    expect(await metrics('upstream_outage')).toEqual({
      'upstream_outage{registry="registry.test"}': 0,
      'upstream_outages_total{registry="registry.test",cause="refused"}': 1,
    });
    expect(await metrics('saved_requests_total')).toEqual(savedMetrics);
    const after = await status();
    expect(after).toMatchObject({ upstreams: [{ state: 'up' }], totals: { savedRequests: 3 } });
    expect(after).not.toHaveProperty('upstreams.0.savedRequests');
  });
});

/** Asks for a blob and takes none of it. */
async function startSlowly(digest: string): Promise<IncomingMessage> {
  const request = httpRequest(urlOf(`blobs/${digest}`), { agent: false });
  request.end();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  response.on('error', () => undefined);
  return response;
}

describe('bytes in flight', () => {
  const fitting = inFlightBytes / shareBytes;

  test('salvor registry answers 503 and waits for nobody when its bytes are all in flight', async () => {
    const image = faultImage('bytes', { layerBytes: 12 * mebibyte });
    pushTo(upstream, image);
    const { digest } = image.layer;
    const slow = await Promise.all(Array.from({ length: fitting }, () => startSlowly(digest)));
    try {
      expect(slow.map(({ statusCode }) => statusCode)).toEqual(slow.map(() => 200));
      expect(await metrics('in_flight_bytes')).toEqual({ in_flight_bytes: inFlightBytes });
      const busy = await get(urlOf(`blobs/${digest}`));
      expect([busy.status, busy.headers['retry-after']]).toEqual([503, '1']);
      // It has waited for none of them: all are where they were.
      expect(slow.map(({ closed }) => closed)).toEqual(slow.map(() => false));
      expect(await metrics('in_flight_bytes')).toEqual({ in_flight_bytes: inFlightBytes });
      await waitFor(() => asked.requests().some(({ decision }) => decision === 'busy'));
      // What is small goes on as long as it fits.
      slow.pop()?.destroy();
      await waitFor(async () => (await metrics('in_flight'))['in_flight_bytes'] !== inFlightBytes);
      expect((await get(urlOf(`manifests/${image.tag}`))).status).toBe(200);
    } finally {
      for (const response of slow) response.destroy();
    }
    await waitFor(async () => (await metrics('in_flight'))['in_flight_bytes'] === 0);
    const again = await get(urlOf(`blobs/${digest}`));
    expect([again.status, again.body.equals(image.layer.bytes)]).toEqual([200, true]);
  });
});
