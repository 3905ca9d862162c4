import { once } from 'node:events';
import type { Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { setTimeout as delay } from 'node:timers/promises';
import { Client, status, type ChannelCredentials } from '@grpc/grpc-js';
import { expect } from 'vitest';
import { createAuthority } from '../../src/rpc/certificates.ts';
import { MutualChannelCredentials } from '../../src/rpc/channel-credentials.ts';
import { readIdentity, roleName, type Identity } from '../../src/rpc/identity.ts';
import { faultImage, pushTo, type FaultImage } from '../faults/matrix/fault-image.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { openFileDescriptors } from '../support/leaks.ts';
import { MemoryRegistry } from '../support/memory-registry.ts';
import { getHash } from '../support/oci-client.ts';
import { freePort } from '../support/ports.ts';
import type { TestScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const listenTimeoutMs = 300;
const atATime = 8;
const slackDescriptors = 8;
const callTimeoutMs = 5000;

/** A node whose processes get garbage, and what tells whether they stand it. */
export class FuzzNode {
  readonly node: DirectoryNode;
  readonly identity: Identity;
  readonly agentPort: number;
  readonly image: FaultImage;
  #descriptors = { registry: 0, agent: 0 };

  private constructor(parts: {
    readonly node: DirectoryNode;
    readonly identity: Identity;
    readonly agentPort: number;
    readonly image: FaultImage;
  }) {
    this.node = parts.node;
    this.identity = parts.identity;
    this.agentPort = parts.agentPort;
    this.image = parts.image;
  }

  /**
   * Starts a node that ends with the scope.
   *
   * @param options.agent of the agent's configuration
   */
  static async start(
    scope: TestScope,
    options: { readonly agent?: object } = {},
  ): Promise<FuzzNode> {
    const image = faultImage('fuzz', { layerBytes: 100_000 });
    const registry = await MemoryRegistry.start(scope);
    pushTo(registry, image);
    const agentPort = await freePort();
    const agentAddress = `127.0.0.1:${agentPort}`;
    const upstreams = { 'fuzz.test': { url: registry.url } };
    const members = [{ name: 'node', address: agentAddress }];
    const node = await DirectoryNode.create(
      scope,
      { name: 'node', agentAddress, members, upstreams, ...options },
      await createAuthority(),
    );
    await node.hold(image.layer.digest, image.layer.bytes);
    await node.startAgent();
    await node.startRegistry();
    const identity = await readIdentity(node.identityPaths);
    const fuzzed = new FuzzNode({ node, identity, agentPort, image });
    await fuzzed.expectAllWell();
    fuzzed.#descriptors = {
      registry: await openFileDescriptors(node.registry.pid),
      agent: await openFileDescriptors(node.agent.pid),
    };
    return fuzzed;
  }

  /**
   * Both processes are there, have not complained, and serve.
   *
   * @param options.but a complaint that is meant
   */
  async expectAllWell(options: { readonly but?: RegExp } = {}): Promise<void> {
    const { node, image } = this;
    expect([node.agent.hasExited, node.registry.hasExited]).toEqual([false, false]);
    const url = `${node.url}/v2/team/app/blobs/${image.layer.digest}?ns=fuzz.test`;
    const pulled = await getHash(url);
    expect([pulled.status, pulled.digest]).toEqual([200, image.layer.digest]);
    expect(await this.stat()).toBe(status.OK);
    const complaints = [...node.agent.lines(), ...node.registry.lines()].filter(
      ({ text }) =>
        /"level":"(error|fatal)"|uncaught|unhandled/i.test(text) &&
        options.but?.test(text) !== true,
    );
    expect(complaints).toEqual([]);
  }

  /** What was opened for callers is closed. */
  async expectNothingLeft(): Promise<void> {
    const { node } = this;
    const settled = await waitFor(
      async () => {
        const registry = await openFileDescriptors(node.registry.pid);
        const agent = await openFileDescriptors(node.agent.pid);
        return (
          registry <= this.#descriptors.registry + slackDescriptors &&
          agent <= this.#descriptors.agent + slackDescriptors
        );
      },
      { timeoutMs: 20_000 },
    ).catch(() => false);
    expect(settled, 'descriptors were given back').toBe(true);
  }

  /** A connection to the agent as another node would make it. */
  tlsSocket(protocol = 'h2'): Socket {
    return connectTls({
      host: '127.0.0.1',
      port: this.agentPort,
      ca: this.identity.ca,
      cert: this.identity.certificate,
      key: this.identity.key,
      minVersion: 'TLSv1.3',
      servername: roleName('agent'),
      ALPNProtocols: [protocol],
      checkServerIdentity: () => undefined,
    });
  }

  /** @returns the status of a good call by another node */
  async stat(): Promise<status> {
    return callOnce(`127.0.0.1:${this.agentPort}`, new MutualChannelCredentials(this.identity), {
      path: '/salvor.agent.v1.Peer/Stat',
      message: Buffer.from(`\n\u0047${this.image.layer.digest}`),
    });
  }
}

/** @returns the status that a unary call ends with */
export async function callOnce(
  target: string,
  channel: ChannelCredentials,
  call: { readonly path: string; readonly message: Buffer },
): Promise<status> {
  const client = new Client(target, channel);
  const same = (bytes: Buffer): Buffer => bytes;
  const { promise, resolve } = Promise.withResolvers<status>();
  const options = { deadline: Date.now() + callTimeoutMs };
  client.makeUnaryRequest(call.path, same, same, call.message, options, (error) =>
    resolve(error?.code ?? status.OK),
  );
  return promise.finally(() => client.close());
}

/** Sends bytes, listens for a moment, and hangs up. */
export async function throwAt(socket: Socket, bytes: Buffer): Promise<string> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', () => socket.destroy());
  const closed = once(socket, 'close');
  socket.write(bytes);
  await Promise.race([closed, delay(listenTimeoutMs)]);
  socket.destroy();
  return Buffer.concat(chunks).toString('latin1');
}

/** Does something with every item, a few at a time. */
export async function inTurns<T>(
  items: readonly T[],
  run: (item: T) => Promise<void>,
): Promise<void> {
  const rest = [...items];
  const worker = async (): Promise<void> => {
    for (let item = rest.shift(); item !== undefined; item = rest.shift()) await run(item);
  };
  await Promise.all(Array.from({ length: atATime }, worker));
}
