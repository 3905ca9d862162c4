import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Identity } from '../../rpc/identity.ts';
import { Child } from './child.ts';
import { ContainerdDaemon, type ContainerdPrograms } from './containerd-daemon.ts';
import { pullImage } from './pull-client.ts';
import type { Workspace } from './workspace.ts';

/** The image that the demo pulls, as its upstream names it. */
export interface DemoImage {
  /** As image names write it, "demo.test" or "docker.io". */
  readonly registry: string;
  readonly repository: string;
  readonly tag: string;
}

/** Who gave a node one thing, as its registry logged it. */
export interface ServedPart {
  readonly what: string;
  readonly digest: string;
  readonly sizeBytes: number;
  /** "upstream", "node/a", "upstream,node/a", "memory". */
  readonly source: string;
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

const PROGRAM = process.argv[1] ?? '';

/** One node: a content store, and a Salvor agent and registry as processes of their own. */
export class DemoNode {
  readonly name: string;
  readonly registryUrl: string;
  readonly #registry: Child;
  readonly #containerd: ContainerdDaemon | undefined;
  readonly #layout: string;
  #linesSeen = 0;

  private constructor(
    options: DemoNodeOptions,
    parts: { registry: Child; containerd: ContainerdDaemon | undefined; layout: string },
  ) {
    this.name = options.name;
    this.registryUrl = `http://127.0.0.1:${options.ports.registry}`;
    this.#registry = parts.registry;
    this.#containerd = parts.containerd;
    this.#layout = parts.layout;
  }

  static async start(workspace: Workspace, options: DemoNodeOptions): Promise<DemoNode> {
    const { name, ports, programs } = options;
    const home = join(workspace.directory, name);
    const layout = join(home, 'store');
    await mkdir(home, { recursive: true });
    const containerd =
      programs === undefined
        ? undefined
        : await ContainerdDaemon.start(workspace, {
            name,
            programs,
            hosts: {
              _default: `[host."http://127.0.0.1:${ports.registry}"]\ncapabilities = ["pull", "resolve"]\n`,
            },
          });
    const config = await writeConfig(home, options, {
      layout,
      containerdSocket: containerd?.socket,
    });
    await startProcess(workspace, { name, role: 'agent', config });
    const registry = await startProcess(workspace, { name, role: 'registry', config });
    return new DemoNode(options, { registry, containerd, layout });
  }

  /**
   * Pulls an image through the node's own registry and recomputes every digest.
   *
   * @param reference its tag or digest
   * @throws when anything is missing or wrong
   */
  async pull(image: DemoImage, reference: string): Promise<ServedPart[]> {
    if (this.#containerd === undefined) {
      const fetched = await pullImage({
        baseUrl: this.registryUrl,
        namespace: image.registry,
        repository: image.repository,
        reference,
        layout: this.#layout,
      });
      // The log has what was asked for, which was a tag; the client knows what it got.
      const root = fetched[0]?.digest ?? '';
      return this.#served().map((part) => (part.digest === '' ? { ...part, digest: root } : part));
    }
    const separator = reference.includes(':') ? '@' : ':';
    await this.#containerd.pull(`${image.registry}/${image.repository}${separator}${reference}`);
    const parts = this.#served();
    for (const { digest } of parts) {
      if (digest === '' || (await this.#containerd.hasRightBytes(digest))) continue;
      throw new Error(`Cannot find the right bytes of ${digest} in the store of ${this.name}`);
    }
    return parts;
  }

  /** What the registry has logged since the last look: who gave what. */
  #served(): ServedPart[] {
    const fresh = this.#registry.lines.slice(this.#linesSeen);
    this.#linesSeen = this.#registry.lines.length;
    return fresh
      .filter((line) => line.includes('"msg":"request"'))
      .map(
        (line) =>
          JSON.parse(line) as { method: string; url: string; source: string; bytes: number },
      )
      .filter(({ method }) => method === 'GET')
      .map(({ url, source, bytes }) => ({
        what: url.includes('/manifests/') ? 'manifest' : 'blob',
        digest: /sha256:[0-9a-f]{64}/.exec(url)?.[0] ?? '',
        sizeBytes: bytes,
        source,
      }));
  }
}

async function writeConfig(
  home: string,
  options: DemoNodeOptions,
  store: { layout: string; containerdSocket: string | undefined },
): Promise<string> {
  const { name, ports, identity, upstream } = options;
  const files = { ca: identity.ca, certificate: identity.certificate, key: identity.key };
  for (const [file, content] of Object.entries(files)) {
    await writeFile(join(home, `${file}.pem`), content, { mode: 0o600 });
  }
  const socket = join(home, 'a.sock');
  const config = join(home, 'salvor.json');
  await writeFile(
    config,
    JSON.stringify({
      node: { name, stateDirectory: join(home, 'state') },
      registry: {
        listen: `127.0.0.1:${ports.registry}`,
        admin: `127.0.0.1:${ports.admin}`,
        agentSocket: socket,
        upstreams: { [upstream.registry]: { url: upstream.url } },
      },
      agent: {
        listen: `127.0.0.1:${ports.agent}`,
        admin: '',
        socket,
        members: { static: options.members },
        store:
          store.containerdSocket === undefined
            ? { kind: 'directory', directory: { path: store.layout } }
            : { kind: 'containerd', containerd: { socket: store.containerdSocket } },
      },
      tls: Object.fromEntries(Object.keys(files).map((file) => [file, join(home, `${file}.pem`)])),
    }),
  );
  return config;
}

async function startProcess(
  workspace: Workspace,
  options: { name: string; role: 'agent' | 'registry'; config: string },
): Promise<Child> {
  const child = await Child.start(workspace, `${options.role} ${options.name}`, {
    command: process.execPath,
    arguments: [PROGRAM, options.role, '--config', options.config],
  });
  await child.waitFor('readiness', () =>
    child.lines.find((line) => line.includes('"msg":"ready"')),
  );
  return child;
}
