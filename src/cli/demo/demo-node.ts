import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Identity } from '../../rpc/identity.ts';
import { Child } from './child.ts';
import { ContainerdDaemon } from './containerd-daemon.ts';
import type { ContainerdPrograms } from './containerd-programs.ts';
import { pullImage } from './pull-client.ts';
import { parseServedPart, type ServedPart } from './served-part.ts';
import { checkImage } from './stored-image.ts';
import type { Workspace } from './workspace.ts';

/** The image that the demo pulls, as its upstream names it. */
export interface DemoImage {
  /** As image names write it, "registry.demo" or "docker.io". */
  readonly registry: string;
  readonly repository: string;
  readonly tag: string;
}

/** An image that has arrived on a node, every digest recomputed. */
export interface Pulled {
  /** The digest that the reference named. */
  readonly root: string;
  readonly blobs: number;
  readonly sizeBytes: number;
  /** Who gave what, in the order in which it was done. */
  readonly parts: readonly ServedPart[];
}

export interface DemoNodeOptions {
  readonly name: string;
  readonly ports: { readonly registry: number; readonly agent: number; readonly admin: number };
  readonly members: readonly { readonly name: string; readonly address: string }[];
  readonly upstream: { readonly registry: string; readonly url: string };
  readonly identity: Identity;
  /** Undefined: the node's store is a directory. */
  readonly programs: ContainerdPrograms | undefined;
}

// What is running at this moment, as sources or built.
const PROGRAM = process.argv[1] ?? '';

/** One node: a content store, and a Salvor agent and registry as processes of their own. */
export class DemoNode {
  readonly name: string;
  readonly registryUrl: string;
  readonly adminAddress: string;
  readonly containerd: ContainerdDaemon | undefined;
  readonly #registry: Child;
  readonly #layout: string;
  readonly #signal: AbortSignal;

  private constructor(
    options: DemoNodeOptions,
    parts: {
      registry: Child;
      containerd: ContainerdDaemon | undefined;
      layout: string;
      signal: AbortSignal;
    },
  ) {
    this.name = options.name;
    this.registryUrl = `http://127.0.0.1:${options.ports.registry}`;
    this.adminAddress = `127.0.0.1:${options.ports.admin}`;
    this.#registry = parts.registry;
    this.containerd = parts.containerd;
    this.#layout = parts.layout;
    this.#signal = parts.signal;
  }

  static async start(workspace: Workspace, options: DemoNodeOptions): Promise<DemoNode> {
    const { name, ports, programs, upstream } = options;
    const home = join(workspace.directory, name);
    const layout = join(home, 'store');
    await mkdir(home, { recursive: true });
    const containerd =
      programs === undefined
        ? undefined
        : await ContainerdDaemon.start(workspace, {
            name,
            programs,
            server: upstream.url,
            mirror: `http://127.0.0.1:${ports.registry}`,
          });
    const config = await writeConfig(home, options, { layout, socket: containerd?.socket });
    const [registry] = await Promise.all(
      (['registry', 'agent'] as const).map(async (role) => {
        const child = await Child.start(workspace, `the ${role} of ${name}`, {
          command: process.execPath,
          arguments: [PROGRAM, role, '--config', config],
        });
        await child.waitFor('readiness', (lines) =>
          lines.some((line) => line.includes('"msg":"ready"')),
        );
        return child;
      }),
    );
    if (registry === undefined) throw new Error(`Cannot start node ${name}`);
    const { signal } = workspace;
    return new DemoNode(options, { registry, containerd, layout, signal });
  }

  /**
   * Pulls an image through the node's own registry and recomputes every digest from its store.
   *
   * @param reference its tag or digest
   * @param onPart told as soon as the registry has logged something
   * @throws when anything is missing or wrong
   */
  async pull(
    image: DemoImage,
    reference: string,
    onPart: (part: ServedPart) => void,
  ): Promise<Pulled> {
    const parts: ServedPart[] = [];
    const off = this.#registry.onLine((line) => {
      const part = parseServedPart(line);
      if (part === undefined) return;
      parts.push(part);
      onPart(part);
    });
    try {
      const { root, blobsDirectory, sources } = await this.#fetch(image, reference);
      const stored = await checkImage(blobsDirectory, root);
      // The last line is written after the last byte was.
      await this.#registry.waitFor('who served each blob', () =>
        stored.every(({ digest }) => parts.some((part) => part.digest === digest)),
      );
      requireAgreement(parts, sources);
      const sizeBytes = stored.reduce((sum, blob) => sum + blob.sizeBytes, 0);
      return { root, blobs: stored.length, sizeBytes, parts };
    } finally {
      off();
    }
  }

  async #fetch(
    image: DemoImage,
    reference: string,
  ): Promise<{ root: string; blobsDirectory: string; sources: ReadonlyMap<string, string> }> {
    const { registry, repository } = image;
    if (this.containerd !== undefined) {
      const separator = reference.includes(':') ? '@' : ':';
      const root = await this.containerd.pull(`${registry}/${repository}${separator}${reference}`);
      return { root, blobsDirectory: this.containerd.blobsDirectory, sources: new Map() };
    }
    const { root, sources } = await pullImage({
      baseUrl: this.registryUrl,
      namespace: registry,
      repository,
      reference,
      layout: this.#layout,
      signal: this.#signal,
    });
    return { root, blobsDirectory: join(this.#layout, 'blobs'), sources };
  }
}

// The header is written before the body: it names the first of the sources in the log, or the last
// one if the blob was small enough to be held until it was whole.
function requireAgreement(
  parts: readonly ServedPart[],
  headers: ReadonlyMap<string, string>,
): void {
  for (const [digest, header] of headers) {
    const agrees = parts.some(
      (part) => part.digest === digest && part.source.split(',').includes(header),
    );
    if (!agrees) throw new Error(`Cannot be: ${digest} came with Salvor-Source "${header}"`);
  }
}

async function writeConfig(
  home: string,
  options: DemoNodeOptions,
  store: { layout: string; socket: string | undefined },
): Promise<string> {
  const { name, ports, identity, upstream } = options;
  const files = { ca: identity.ca, certificate: identity.certificate, key: identity.key };
  for (const [file, content] of Object.entries(files)) {
    await writeFile(join(home, `${file}.pem`), content, { mode: 0o600 });
  }
  const socket = join(home, 'a.sock');
  const config = join(home, 'salvor.json');
  const content = {
    node: { name, stateDirectory: join(home, 'state') },
    registry: {
      listen: `127.0.0.1:${ports.registry}`,
      admin: `127.0.0.1:${ports.admin}`,
      agentSocket: socket,
      proveSocket: '',
      upstreams: { [upstream.registry]: { url: upstream.url } },
    },
    agent: {
      listen: `127.0.0.1:${ports.agent}`,
      admin: '',
      socket,
      members: { static: options.members },
      store:
        store.socket === undefined
          ? { kind: 'directory', directory: { path: store.layout } }
          : { kind: 'containerd', containerd: { socket: store.socket } },
    },
    tls: Object.fromEntries(Object.keys(files).map((file) => [file, join(home, `${file}.pem`)])),
  };
  await writeFile(config, JSON.stringify(content, undefined, 2));
  return config;
}
