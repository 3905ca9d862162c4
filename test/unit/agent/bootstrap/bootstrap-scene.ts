import { once } from 'node:events';
import { request } from 'node:https';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { connect, type TLSSocket } from 'node:tls';
import { Registry } from 'prom-client';
import { createAgentMetrics } from '../../../../src/agent/agent-metrics.ts';
import { BootstrapContent } from '../../../../src/agent/bootstrap/bootstrap-content.ts';
import { createBootstrapMetrics } from '../../../../src/agent/bootstrap/bootstrap-metrics.ts';
import { BootstrapRules } from '../../../../src/agent/bootstrap/bootstrap-rules.ts';
import { BootstrapServer } from '../../../../src/agent/bootstrap/bootstrap-server.ts';
import { RepositoryContents } from '../../../../src/agent/bootstrap/repository-contents.ts';
import { HeldContent } from '../../../../src/agent/held-content.ts';
import { ManifestReader } from '../../../../src/agent/inventory/manifest-reader.ts';
import { Observations } from '../../../../src/agent/observations.ts';
import { RefusedConnections } from '../../../../src/agent/refused-connections.ts';
import type { ContentStore, OpenBlob, StoreCallOptions } from '../../../../src/agent/store.ts';
import { StoreUnavailableError } from '../../../../src/agent/store.ts';
import type { Digest } from '../../../../src/oci/digest.ts';
import { DEFAULT_POLICY, type PolicyRule } from '../../../../src/policy/policy.ts';
import type { Identity } from '../../../../src/rpc/identity.ts';
import { ServerIdentity } from '../../../../src/rpc/server-identity.ts';
import { silentLogger } from '../../../../src/telemetry/logger.ts';
import { FakeClock } from '../../../support/fake-clock.ts';
import { MemoryStore } from '../inventory/memory-store.ts';

export const CHUNK_BYTES = 16 * 1024;

/** What a test asks for and how. */
export interface Ask {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** undefined: no certificate is shown. */
  readonly identity?: Identity | undefined;
  readonly body?: string;
}

export interface Got {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** A store in memory as the whole port, with names and a switch for its being away. */
export class NamedStore extends MemoryStore implements ContentStore {
  /** Blobs that are open at this moment. */
  openBlobs = 0;
  /** Holds reads back until it is resolved. */
  gate: Promise<unknown> | undefined;
  isAway = false;

  async stat(digest: Digest) {
    this.#check();
    const bytes = this.blobsByDigest.get(digest);
    return bytes && { digest, sizeBytes: bytes.length, fingerprint: '1' };
  }

  override async open(digest: Digest): Promise<OpenBlob | undefined> {
    this.#check();
    const blob = await super.open(digest);
    if (blob === undefined) return undefined;
    this.openBlobs += 1;
    return {
      ...blob,
      read: async (target, position) => {
        await this.gate;
        return blob.read(target, position);
      },
      close: async () => {
        this.openBlobs -= 1;
      },
    };
  }

  async resolve(name: string) {
    this.#check();
    const found = this.images.find((image) => image.name === name);
    if (found === undefined) return undefined;
    return { name, ...found.target, digest: found.target.digest as Digest, recordedAtMs: 1000 };
  }

  async *names(options: StoreCallOptions = {}) {
    this.#check();
    options.signal?.throwIfAborted();
    for (const { name, target } of this.images) {
      yield { name, ...target, digest: target.digest as Digest, recordedAtMs: 1000 };
    }
  }

  async abortIngest(): Promise<number> {
    return 0;
  }

  async ready(): Promise<boolean> {
    return !this.isAway;
  }

  async close(): Promise<void> {
    // Nothing stays open.
  }

  #check(): void {
    if (this.isAway) throw new StoreUnavailableError('Cannot ask containerd: it restarts');
  }
}

/** What a scene is set up with. */
export interface BootstrapSceneOptions {
  readonly repositories: readonly string[];
  readonly policies?: readonly (Partial<PolicyRule> & { readonly match: string })[];
  readonly deny?: readonly string[];
  readonly maxRequests?: number;
  readonly maxHandshakes?: number;
  readonly clientStallMs?: number;
}

/** A listener over TLS on a real socket, over a store in memory. */
export class BootstrapScene implements AsyncDisposable {
  readonly store = new NamedStore();
  readonly clock = new FakeClock();
  readonly observations = new Observations({ maxNames: 100 });
  /** Blobs that nobody has hashed yet, and those that turned out to be wrong. */
  readonly unverified = new Set<Digest>();
  readonly rechecked: Digest[] = [];
  readonly logged: { readonly level: string; readonly fields: Record<string, unknown> }[] = [];
  readonly register = new Registry();
  readonly identity: ServerIdentity;
  readonly server: BootstrapServer;
  readonly content: BootstrapContent;
  port = 0;

  private constructor(identity: Identity, options: BootstrapSceneOptions) {
    const { clock, store } = this;
    const note =
      (level: string) =>
      (fields: unknown): void =>
        void this.logged.push({ level, fields: fields as Record<string, unknown> });
    const log = { ...silentLogger, info: note('info'), warn: note('warn'), error: note('error') };
    const content = new HeldContent({
      store,
      integrity: {
        stateOf: ({ digest }) => (this.unverified.has(digest) ? 'unverified' : 'verified'),
        request: () => undefined,
      },
      reports: {
        add: async (digest) => {
          this.rechecked.push(digest);
          return 'corrupt';
        },
      },
      observations: this.observations,
    });
    const rules = rulesFor(options);
    const reader = new ManifestReader({}, { store });
    const repositories = new RepositoryContents({ rules }, { content, reader, clock, log });
    this.content = new BootstrapContent({ rules }, { content, repositories, clock });
    this.identity = new ServerIdentity(identity);
    this.server = new BootstrapServer(
      {
        node: 'a',
        maxRequests: options.maxRequests ?? 4,
        maxHandshakes: options.maxHandshakes ?? 16,
        clientStallMs: options.clientStallMs ?? 60_000,
        chunkBytes: CHUNK_BYTES,
      },
      {
        content: this.content,
        onWrongBytes: (digest) => void content.reportCorrupt(digest, { host: 'this node' }),
        identity: this.identity,
        refused: new RefusedConnections({ log, metrics: createAgentMetrics(this.register) }),
        metrics: createBootstrapMetrics(this.register),
        clock,
        log,
      },
    );
  }

  static async start(identity: Identity, options: BootstrapSceneOptions): Promise<BootstrapScene> {
    const scene = new BootstrapScene(identity, options);
    scene.port = await scene.server.listen({ host: '127.0.0.1', port: 0 });
    return scene;
  }

  /**
   * One request on a connection of its own.
   *
   * @throws when TLS or the connection fails
   */
  async ask(path: string, { body, headers = {}, identity, method = 'GET' }: Ask): Promise<Got> {
    const outgoing = request({
      host: '127.0.0.1',
      port: this.port,
      path,
      method,
      headers: { connection: 'close', ...headers },
      agent: false,
      // Of the authority; addresses are another test's business.
      checkServerIdentity: () => undefined,
      ...this.#tls(identity),
    });
    outgoing.end(body);
    // Told by the response, or by waiting for it.
    outgoing.on('error', () => undefined);
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    const { statusCode = 0 } = response;
    return { status: statusCode, headers: response.headers, body: Buffer.concat(chunks) };
  }

  /** A TLS connection to speak HTTP on by hand. */
  async connect(identity: Identity | undefined): Promise<TLSSocket> {
    const socket = connect({
      host: '127.0.0.1',
      port: this.port,
      checkServerIdentity: () => undefined,
      ...this.#tls(identity),
    });
    await once(socket, 'secureConnect');
    return socket;
  }

  /** How often a request ended so. */
  async count(result: string): Promise<number> {
    const metric = this.register.getSingleMetric('salvor_agent_bootstrap_requests_total');
    const values = (await metric?.get())?.values ?? [];
    return values.find(({ labels }) => labels['result'] === result)?.value ?? 0;
  }

  async refusals(reason: string): Promise<number> {
    const metric = this.register.getSingleMetric('salvor_agent_refused_connections_total');
    const values = (await metric?.get())?.values ?? [];
    return values.find(({ labels }) => labels['reason'] === reason)?.value ?? 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.close({ signal: AbortSignal.abort() });
  }

  #tls(identity: Identity | undefined): object {
    const ca = identity?.ca ?? this.ca;
    return { ca, ...(identity && { cert: identity.certificate, key: identity.key }) };
  }

  get ca(): Buffer {
    return (this.identity.options() as { ca: Buffer }).ca;
  }
}

export function rulesFor(
  options: Pick<BootstrapSceneOptions, 'deny' | 'policies' | 'repositories'>,
): BootstrapRules {
  const { deny = [], policies = [], repositories } = options;
  return new BootstrapRules({
    repositories,
    registries: { allow: ['*'], deny, configured: [] },
    policies: policies.map((policy) => ({ ...DEFAULT_POLICY, ...policy })),
  });
}
