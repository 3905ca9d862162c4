import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { request, type IncomingMessage } from 'node:http';
import { connect, type Socket } from 'node:net';
import { beforeAll, describe, expect, test } from 'vitest';
import { startCluster, type Cluster, type ClusterNode } from '../support/cluster.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { expectOciError } from '../support/expect-oci-error.ts';
import { startFaultProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { buildImage, type Image } from '../support/image.ts';
import { openFileDescriptors, residentBytes, socketCounts } from '../support/leaks.ts';
import { sha256 } from '../support/layer.ts';
import { get } from '../support/oci-client.ts';
import type { Program } from '../support/process.ts';
import { pushImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('bad-clients');
const registryName = 'registry.test';
const repository = 'team/app';
const mebibyte = 1024 ** 2;
const layerBytes = 64 * mebibyte;
const slowReaders = 10;
// What a reader at rest may cost, and what a busy process takes for a while anyway.
const memoryBound = (64 + slowReaders * 4) * mebibyte;
const slowWriters = 50;
const parallelClients = 500;
const settleTimeoutMs = 10_000;

let upstream: DockerRegistry;
let proxy: FaultProxy;
let cluster: Cluster;
let image: Image;
let layer: string;
let small: string;

function asker(): ClusterNode {
  return cluster.node('asker');
}

function holder(): ClusterNode {
  return cluster.node('holder');
}

function contentUrl(path: string): string {
  return `${asker().url}/v2/${repository}/${path}?ns=${registryName}`;
}

/** What a process has open. */
interface Open {
  readonly descriptors: number;
  readonly sockets: number;
}

async function openIn(program: Program): Promise<Open> {
  const descriptors = await openFileDescriptors(program.pid);
  const { established, other } = await socketCounts(program.pid);
  return { descriptors, sockets: established + other };
}

/** The programs that must let go of what they opened for a client. */
function programs(): Program[] {
  return [asker().registry, asker().agent, holder().agent];
}

/**
 * Waits until no program has more open than before. Connections to a client that has gone may take a moment to end.
 */
async function expectNothingLeft(before: readonly Open[]): Promise<void> {
  const now = async (): Promise<Open[]> => Promise.all(programs().map(openIn));
  await waitFor(
    async () => {
      const open = await now();
      return open.every(
        ({ descriptors, sockets }, index) =>
          descriptors <= before[index]!.descriptors && sockets <= before[index]!.sockets,
      );
    },
    { timeoutMs: settleTimeoutMs, what: `no more than ${JSON.stringify(before)}` },
  ).catch(async (error: unknown) => {
    throw new Error(`${String(error)}, but ${JSON.stringify(await now())}`, { cause: error });
  });
}

async function metric(node: ClusterNode, port: number, name: string): Promise<number> {
  const { body } = await get(`http://127.0.0.1:${port}/metrics`);
  const found = new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'm').exec(body.toString());
  if (found === null) throw new Error(`Cannot find ${name} on ${node.name}`);
  return Number(found[1]);
}

function readersAtHolder(): Promise<number> {
  return metric(holder(), holder().agentAdminPort, 'salvor_agent_readers');
}

function sentByHolder(): Promise<number> {
  return metric(holder(), holder().agentAdminPort, 'salvor_agent_sent_bytes_total');
}

/** A client that has its answer's head and reads nothing of the body until it is told to. */
async function openWithoutReading(url: string): Promise<IncomingMessage> {
  const outgoing = request(url, { agent: false });
  outgoing.end();
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  return response;
}

/** One after the other, so that each begins while those before it hold up what they can. */
async function openSlowReaders(): Promise<IncomingMessage[]> {
  const responses: IncomingMessage[] = [];
  while (responses.length < slowReaders) {
    const response = await openWithoutReading(contentUrl(`blobs/${layer}`));
    expect(response.statusCode).toBe(200);
    responses.push(response);
  }
  return responses;
}

/** Waits until a number stays what it is: nothing moves any more. */
async function settled(value: () => number | Promise<number>): Promise<number> {
  let last = await value();
  let since = performance.now();
  return waitFor(async () => {
    const next = await value();
    if (next !== last) since = performance.now();
    last = next;
    return performance.now() - since > 500 ? last : undefined;
  });
}

/** Some read on to the end and must have every byte, the others have had enough. */
async function finish(responses: readonly IncomingMessage[]): Promise<void> {
  for (const response of responses.slice(3)) response.on('error', () => undefined).destroy();
  for (const response of responses.slice(0, 3)) {
    const hash = createHash('sha256');
    for await (const chunk of response as AsyncIterable<Buffer>) hash.update(chunk);
    expect(`sha256:${hash.digest('hex')}`).toBe(layer);
  }
}

/** Clients that have just begun to send a request, and go on to send it a byte at a time. */
class SlowWriters {
  readonly #sockets: { readonly socket: Socket; received: string; hasEnded: boolean }[];
  readonly #timer: NodeJS.Timeout;

  constructor(port: number, count: number) {
    this.#sockets = Array.from({ length: count }, () => {
      const socket = connect({ host: '127.0.0.1', port });
      const client = { socket, received: '', hasEnded: false };
      const end = (): void => void (client.hasEnded = true);
      socket.on('data', (chunk: Buffer) => (client.received += chunk.toString('latin1')));
      socket.on('error', () => socket.destroy());
      socket.once('end', end).once('close', end);
      socket.write('GET /v2/ HTTP/1.1\r\nHost: mirror\r\nX-Slow: ');
      return client;
    });
    this.#timer = setInterval(() => {
      for (const { socket, hasEnded } of this.#sockets) if (!hasEnded) socket.write('a');
    }, 250);
    scope().defer(() => this.stop());
  }

  /** What each was answered, once all have ended: none ends by itself. */
  async answers(): Promise<string[]> {
    await waitFor(() => this.#sockets.every(({ hasEnded }) => hasEnded), {
      timeoutMs: 100_000,
      what: 'the end of every slow request',
    });
    this.stop();
    return this.#sockets.map(({ received }) => received.split('\r\n')[0]!);
  }

  stop(): void {
    clearInterval(this.#timer);
    for (const { socket } of this.#sockets) socket.destroy();
  }
}

let slow: SlowWriters;
let atFirst: readonly Open[];

/** Many clients at once, each with a connection of its own; each must get a clear answer. */
async function storm(): Promise<{ served: number; busy: number }> {
  const paths = ['manifests/v1', `manifests/${image.digest}`, `blobs/${small}`];
  const digests = [image.digest, image.digest, small];
  const outcome = { served: 0, busy: 0 };
  await Promise.all(
    Array.from({ length: parallelClients }, async (_, index) => {
      const which = index % paths.length;
      const answer = await get(contentUrl(paths[which]!));
      if (answer.status === 200) {
        expect(sha256(answer.body)).toBe(digests[which]);
        outcome.served += 1;
      } else {
        expectOciError(answer, { status: 503, code: 'UNAVAILABLE' });
        outcome.busy += 1;
      }
    }),
  );
  return outcome;
}

/**
 * Uses everything once: connections between the programs are kept for the next request and do not
 * count, and those to the upstream are closed.
 */
async function warmUp(): Promise<void> {
  expect(await get(contentUrl('manifests/v1'))).toMatchObject({ status: 200 });
  await proxy.setMode({ kind: 'refuse' });
  const answer = await get(contentUrl(`blobs/${small}`));
  expect(answer.headers['salvor-source']).toBe('node/holder');
  await proxy.setMode({ kind: 'pass' });
  expect(await get(contentUrl(`blobs/${small}`))).toMatchObject({ status: 200 });
  await waitFor(async () => {
    const { headers } = await get(contentUrl(`blobs/${small}`));
    return headers['salvor-source'] === 'upstream';
  });
  proxy.resetConnections();
}

beforeAll(async () => {
  upstream = await startDockerRegistry(scope());
  proxy = await startFaultProxy(scope(), { targetPort: upstream.port });
  image = await buildImage({
    directory: scope().directory,
    compression: 'none',
    layers: [{ randomBytes: layerBytes }, { randomBytes: 200_000, seed: 'small' }],
  });
  await pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, image);
  const bySize = image.blobs.toSorted((a, b) => b.size - a.size);
  [layer, small] = [bySize[0]!.digest, bySize[1]!.digest];
  cluster = await startCluster(scope(), {
    nodes: ['holder', 'asker'],
    upstreams: { [registryName]: { url: proxy.url } },
  });
  await holder().containerd.pull(`${registryName}/${repository}:v1`);
  await warmUp();
  atFirst = await Promise.all(programs().map(openIn));
  slow = new SlowWriters(asker().registryPort, slowWriters);
});

describe('a client that goes away', () => {
  test('in the middle of a body ends what the registry sends', async () => {
    await proxy.setMode({ kind: 'throttle', bytesPerSecond: 2 * mebibyte });
    const response = await openWithoutReading(contentUrl(`blobs/${layer}`));
    response.on('error', () => undefined);
    await once(response, 'data');
    const exchange = proxy.exchanges.at(-1)!;
    expect(exchange).toMatchObject({ method: 'GET', status: 200 });
    expect(proxy.openConnections).toBe(1);

    response.destroy();

    await waitFor(() => proxy.openConnections === 0, { timeoutMs: settleTimeoutMs });
    expect(exchange.bodyBytes).toBeLessThan(layerBytes / 2);
    await proxy.setMode({ kind: 'pass' });
  });

  test.each(['manifests/v1', 'blobs/layer'])(
    'before the registry has answered ends the request: %s',
    async (what) => {
      await proxy.setMode({ kind: 'silent' });
      const outgoing = request(contentUrl(what === 'blobs/layer' ? `blobs/${layer}` : what), {
        agent: false,
      });
      outgoing.on('error', () => undefined);
      outgoing.end();
      await waitFor(() => proxy.openConnections > 0);

      outgoing.destroy();

      await waitFor(() => proxy.openConnections === 0, { timeoutMs: 2000 });
      await proxy.setMode({ kind: 'pass' });
    },
  );
});

describe('clients that read slowly', () => {
  test('do not make memory grow and get every byte from the registry', async () => {
    const before = await residentBytes(asker().registry.pid);
    const from = proxy.exchanges.length;
    const responses = await openSlowReaders();

    const taken = await settled(() =>
      proxy.exchanges.slice(from).reduce((sum, { bodyBytes }) => sum + bodyBytes, 0),
    );
    const grown = (await residentBytes(asker().registry.pid)) - before;
    console.log(
      `${slowReaders} readers at rest: ${Math.round(taken / mebibyte)} MiB taken from the ` +
        `registry, ${Math.round(grown / mebibyte)} MiB more resident`,
    );
    expect(taken).toBeLessThan((slowReaders * layerBytes) / 2);
    expect(grown).toBeLessThan(memoryBound);

    await finish(responses);
  });
});

describe('many clients at once', () => {
  test('each get an answer from the registry', async () => {
    const before = await Promise.all(programs().map(openIn));
    const { served, busy } = await storm();
    console.log(`healthy: ${served} served, ${busy} told to come again`);
    expect(served + busy).toBe(parallelClients);
    expect(served).toBeGreaterThanOrEqual(parallelClients / 2);
    proxy.resetConnections();
    await expectNothingLeft(before);
  });
});

describe('clients that write slowly', () => {
  test('are answered 408 and let go, while others are served', async () => {
    expect(await get(contentUrl('manifests/v1'))).toMatchObject({ status: 200 });

    expect(new Set(await slow.answers())).toEqual(new Set(['HTTP/1.1 408 Request Timeout']));
  });
});

describe('in the outage', () => {
  beforeAll(async () => {
    await upstream.kill('SIGKILL');
    await proxy.setMode({ kind: 'refuse' });
    expect(await get(contentUrl('manifests/v1'))).toMatchObject({ status: 200 });
  });

  test('a client that goes away ends what a node sends', async () => {
    const before = await sentByHolder();
    const response = await openWithoutReading(contentUrl(`blobs/${layer}`));
    response.on('error', () => undefined);
    expect(response.headers['salvor-source']).toBe('node/holder');
    await settled(sentByHolder);
    expect(await readersAtHolder()).toBe(1);

    response.destroy();

    await waitFor(async () => (await readersAtHolder()) === 0, { timeoutMs: settleTimeoutMs });
    expect((await sentByHolder()) - before).toBeLessThan(layerBytes);
  });

  test('clients that read slowly do not make memory grow and get every byte', async () => {
    const sentBefore = await sentByHolder();
    const pids = [asker().registry.pid, holder().agent.pid];
    const before = await Promise.all(pids.map(residentBytes));
    const responses = await openSlowReaders();

    // Not one of them has been sent to its end.
    const sent = (await settled(sentByHolder)) - sentBefore;
    expect(sent).toBe(0);
    expect(await readersAtHolder()).toBe(slowReaders);
    const after = await Promise.all(pids.map(residentBytes));
    const grown = after.map((bytes, index) => bytes - before[index]!);
    console.log(
      `${slowReaders} readers at rest, from a node: ` +
        `${grown.map((bytes) => Math.round(bytes / mebibyte)).join(' and ')} MiB more resident`,
    );
    for (const bytes of grown) expect(bytes).toBeLessThan(memoryBound);

    await finish(responses);
  });

  test('many clients at once each get an answer', async () => {
    const { served, busy } = await storm();
    console.log(`outage: ${served} served, ${busy} sent away`);
    expect(served + busy).toBe(parallelClients);
    // A node serves so many at a time and sends the others away; how many depends on the machine.
    expect(served).toBeGreaterThan(parallelClients / 20);
  });

  test('and when all are gone, nothing is left open and all is served', async () => {
    await expectNothingLeft(atFirst);

    expect(await get(contentUrl(`blobs/${small}`))).toMatchObject({ status: 200 });
    for (const program of programs()) {
      expect(program.hasExited).toBe(false);
      const errors = program.lines().filter(({ text }) => /"level":"(error|fatal)"/.test(text));
      expect(errors.map(({ text }) => text)).toEqual([]);
      expect(program.lines().filter(({ stream }) => stream === 'stderr')).toEqual([]);
    }
  });
});
