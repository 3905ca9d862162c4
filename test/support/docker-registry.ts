import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { freePort } from './ports.ts';
import { Program } from './process.ts';
import type { TestScope } from './test-scope.ts';
import { toolEnv, toolPath } from './tools.ts';

/** How an upstream registry is set up. */
export interface DockerRegistryOptions {
  /** Tells several apart in logs and directories. */
  readonly name?: string;
  /** PEM files. Given: https instead of http. */
  readonly tls?: { readonly certificate: string; readonly key: string };
  /** Given: every request needs a token of this server. */
  readonly auth?: {
    readonly realm: string;
    readonly service: string;
    readonly issuer: string;
    /** PEM file of the certificate whose key signs tokens. */
    readonly rootCertificate: string;
  };
  /** URL of a registry to mirror; such a registry takes no pushes. */
  readonly proxy?: string;
  readonly port?: number;
  /** On another network: an address there, and what puts a command on it. */
  readonly network?: { readonly address: string; readonly launcher: readonly string[] };
  /** Content of an earlier one. */
  readonly storageDirectory?: string;
}

/** One answered request, as the registry's own access log has it. */
export interface RegistryAccess {
  readonly method: string;
  /** With the query. */
  readonly path: string;
  readonly status: number;
  /** Bytes of the body that were sent. */
  readonly sizeBytes: number;
  /** Whether a range was asked for and served. The log does not say which. */
  readonly partial: boolean;
  readonly userAgent: string;
}

const accessPattern =
  /^\S+ \S+ \S+ \[[^\]]+\] "(?<method>[A-Z]+) (?<path>\S+) HTTP\/[\d.]+" (?<status>\d+) (?<size>\d+) "[^"]*" "(?<agent>[^"]*)"/;

/**
 * A real docker-registry on a loopback port, with its files in the scope's directory. Its access
 * log has no request headers and no requests that were never answered to the end: for those put a
 * FaultProxy in front and read its `exchanges`.
 */
export class DockerRegistry {
  readonly port: number;
  readonly url: string;
  /** host:port, as image names write it. */
  readonly host: string;
  /** Where blobs and manifests are. */
  readonly storageDirectory: string;
  readonly #scope: TestScope;
  readonly #name: string;
  readonly #launcher: readonly string[];
  readonly #configPath: string;
  #program: Program | undefined;
  #mark = 0;
  #earlierAccesses: RegistryAccess[] = [];

  private constructor(scope: TestScope, options: DockerRegistryOptions, port: number) {
    this.#scope = scope;
    this.#name = options.name ?? 'docker-registry';
    this.port = port;
    this.#launcher = options.network?.launcher ?? [];
    this.host = `${options.network?.address ?? '127.0.0.1'}:${port}`;
    this.url = `${options.tls === undefined ? 'http' : 'https'}://${this.host}`;
    this.storageDirectory = options.storageDirectory ?? join(scope.directory, this.#name);
    this.#configPath = join(scope.directory, `${this.#name}.yml`);
  }

  /** Starts a registry that ends with the scope. */
  static async start(
    scope: TestScope,
    options: DockerRegistryOptions = {},
  ): Promise<DockerRegistry> {
    const registry = new DockerRegistry(scope, options, options.port ?? (await freePort()));
    await mkdir(registry.storageDirectory, { recursive: true });
    await writeFile(registry.#configPath, registry.#renderConfig(options));
    await registry.#launch();
    return registry;
  }

  get pid(): number {
    return this.#running.pid;
  }

  get program(): Program {
    return this.#running;
  }

  /** What it answered since it was made or since {@link DockerRegistry.clearAccesses}. */
  accesses(): readonly RegistryAccess[] {
    return [...this.#earlierAccesses, ...parseAccesses(this.#running, this.#mark)];
  }

  /** Forgets what it answered so far. */
  clearAccesses(): void {
    this.#earlierAccesses = [];
    this.#mark = this.#running.lineCount;
  }

  /** SIGKILL: refuses connections from now on. SIGSTOP: accepts and says nothing. SIGCONT: goes on. */
  async kill(signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT'): Promise<void> {
    await this.#running.kill(signal);
  }

  /** Starts it again on the same port with the same content. */
  async restart(): Promise<void> {
    await this.#running.stop();
    this.#earlierAccesses = [...this.accesses()];
    this.#mark = 0;
    await this.#launch();
  }

  get #running(): Program {
    if (this.#program === undefined) throw new Error(`Cannot use ${this.#name} before its start`);
    return this.#program;
  }

  async #launch(): Promise<void> {
    const command = [toolPath('docker-registry'), 'serve', this.#configPath];
    const [first, ...others] = [...this.#launcher, ...command];
    this.#program = await Program.start(this.#scope, {
      name: this.#name,
      command: first!,
      arguments: others,
      env: { ...toolEnv('docker-registry'), OTEL_TRACES_EXPORTER: 'none' },
    });
    // Whoever is on that network sees when it listens.
    if (this.#launcher.length === 0) await this.#program.waitForPort(this.port);
  }

  #renderConfig(options: DockerRegistryOptions): string {
    // JSON is YAML.
    return JSON.stringify({
      version: '0.1',
      log: { level: 'warn', formatter: 'json', accesslog: { disabled: false } },
      storage: {
        filesystem: { rootdirectory: this.storageDirectory },
        delete: { enabled: true },
        maintenance: { uploadpurging: { enabled: false } },
      },
      http: {
        addr: this.host,
        secret: 'only for tests',
        // Uploads then follow whatever address the client used, a proxy's for instance.
        relativeurls: true,
        ...(options.tls && {
          tls: { certificate: options.tls.certificate, key: options.tls.key },
        }),
      },
      ...(options.proxy !== undefined && { proxy: { remoteurl: options.proxy } }),
      ...(options.auth && {
        auth: {
          token: {
            realm: options.auth.realm,
            service: options.auth.service,
            issuer: options.auth.issuer,
            rootcertbundle: options.auth.rootCertificate,
          },
        },
      }),
    });
  }
}

/** Starts a registry that ends with the scope. */
export async function startDockerRegistry(
  scope: TestScope,
  options: DockerRegistryOptions = {},
): Promise<DockerRegistry> {
  return DockerRegistry.start(scope, options);
}

function parseAccesses(program: Program, from: number): RegistryAccess[] {
  return program
    .lines(from)
    .map((line) => accessPattern.exec(line.text)?.groups)
    .filter((groups) => groups !== undefined)
    .map((groups) => ({
      method: groups['method']!,
      path: groups['path']!,
      status: Number(groups['status']),
      sizeBytes: Number(groups['size']),
      partial: groups['status'] === '206',
      userAgent: groups['agent']!,
    }));
}
