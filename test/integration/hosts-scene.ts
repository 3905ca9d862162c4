import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { request } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { createAuthority } from '../../src/rpc/certificates.ts';
import { startContainerd, type ContainerdNode } from '../support/containerd-node.ts';
import type { ContainerdVersion } from '../support/containerd-version.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage } from '../support/image.ts';
import { PrefixFront } from '../support/prefix-front.ts';
import { pushImage } from '../support/push.ts';
import { issueServerCertificate } from '../support/server-certificate.ts';
import type { TestScope } from '../support/test-scope.ts';
import { repositoryRoot } from '../support/tools.ts';

const commandTimeoutMs = 60_000;
const commandLine = join(repositoryRoot, 'src/main.ts');

/** What a command wrote, and how it ended. */
export interface CommandResult {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

/**
 * A node as a company has it: containerd with a certs.d of its own, a mirror under a path that wants
 * a password, a registry that wants certificates; and Salvor, which nobody is sent to yet.
 */
export class HostsScene {
  /** What the company's mirror wants to hear. */
  static readonly authorization = `Basic ${Buffer.from('robot:c2VjcmV0').toString('base64')}`;
  readonly node: ContainerdNode;
  readonly salvor: DirectoryNode;
  readonly home: DockerRegistry;
  /** Where the company's mirror has its images. */
  readonly cacheUrl: string;
  readonly front: PrefixFront;
  /** Paths that were asked of the registry with certificates. */
  readonly tlsRequests: readonly string[];
  readonly #scope: TestScope;

  private constructor(
    scope: TestScope,
    parts: Pick<HostsScene, 'node' | 'salvor' | 'home' | 'cacheUrl' | 'front' | 'tlsRequests'>,
  ) {
    this.#scope = scope;
    this.node = parts.node;
    this.salvor = parts.salvor;
    this.home = parts.home;
    this.cacheUrl = parts.cacheUrl;
    this.front = parts.front;
    this.tlsRequests = parts.tlsRequests;
  }

  static async create(
    scope: TestScope,
    options: { readonly version: ContainerdVersion },
  ): Promise<HostsScene> {
    const cache = await startDockerRegistry(scope, { name: 'cache' });
    const home = await startDockerRegistry(scope, { name: 'home' });
    const front = await PrefixFront.start(scope, {
      targetPort: cache.port,
      prefix: '/v2/hub',
      authorization: HostsScene.authorization,
    });
    const node = await startContainerd(scope, { name: 'node', ...options, hostsToml: '' });
    const { url, requests } = await startTlsFront(scope, home.port, node.certsDirectory);
    await plant(node.certsDirectory, {
      'hub.test/hosts.toml': [
        `server = "${home.url}"`,
        '# The company has a mirror.',
        `[host."${front.url}"]`,
        'capabilities = ["pull", "resolve"]',
        'override_path = true',
        `[host."${front.url}".header]`,
        `Authorization = "${HostsScene.authorization}"`,
        '',
      ],
      'tls.test_5000_/hosts.toml': [
        `[host."${url}"]`,
        'ca = "ca.pem"',
        'client = [["client.pem", "client.key"]]',
        '',
      ],
      'broken.test/hosts.toml': ['server = ', ''],
    });
    await mkdir(join(node.certsDirectory, 'bare.test'));
    const upstreams = { 'bare.test': { url: home.url }, 'other.test': { url: home.url } };
    const { salvor } = await DirectoryNode.createGroup(scope, ['salvor'], { upstreams });
    return new HostsScene(scope, {
      node,
      salvor,
      home,
      cacheUrl: cache.url,
      front,
      tlsRequests: requests,
    });
  }

  /** Pushes an image to where the company's mirror has it, or to where only the registry has it. */
  async publish(repository: string, where: { readonly baseUrl: string }): Promise<void> {
    const layers = [{ randomBytes: 50_000, seed: repository }];
    const image = await buildImage({ directory: this.#scope.directory, layers });
    await pushImage({ repository, tag: 'v1', ...where }, image);
  }

  /** Runs `salvor hosts` with the node's own settings, as its systemd unit would. */
  async hosts(...options: readonly string[]): Promise<CommandResult> {
    const places = [
      ...['--config', this.salvor.configPath],
      ...['--containerd-config', join(dirname(this.node.certsDirectory), 'config.toml')],
      ...['--agent-store-containerd-socket', this.node.socketPath],
    ];
    return new Promise((resolve) => {
      execFile(
        process.execPath,
        [commandLine, 'hosts', ...options, ...places],
        { timeout: commandTimeoutMs },
        (error, out, errorText) => {
          const code = error === null ? 0 : Number(error.code ?? -1);
          resolve({ code, out, error: errorText });
        },
      );
    });
  }

  /** Requests for content that Salvor answered, newest last. */
  salvorPulls(registry: string): number {
    return this.salvor.registry
      .lines()
      .filter(
        ({ text }) =>
          text.includes(`?ns=${encodeURIComponent(registry)}"`) && text.includes('"status":200'),
      ).length;
  }

  async files(): Promise<string[]> {
    return readdir(this.node.certsDirectory, { recursive: true });
  }

  async text(name: string): Promise<string> {
    return readFile(join(this.node.certsDirectory, name), 'utf8');
  }
}

/** https before a registry; whoever has no certificate is refused. Puts the client's files down. */
async function startTlsFront(
  scope: TestScope,
  targetPort: number,
  certsDirectory: string,
): Promise<{ readonly url: string; readonly requests: readonly string[] }> {
  const { ca, cert, key } = await issueServerCertificate(await createAuthority());
  const requests: string[] = [];
  const options = { ca, cert, key, requestCert: true, rejectUnauthorized: true };
  const server = createServer(options, (message, response) => {
    requests.push(message.url ?? '');
    const { headers, method, url: path } = message;
    const onward = request({
      ...{ port: targetPort, host: '127.0.0.1', method, path, headers },
      agent: false,
    });
    onward.on('response', (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    onward.end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  scope.defer(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  await plant(certsDirectory, {
    'tls.test_5000_/ca.pem': [ca],
    'tls.test_5000_/client.pem': [cert],
    'tls.test_5000_/client.key': [key],
  });
  return { url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}

async function plant(
  directory: string,
  files: Readonly<Record<string, readonly string[]>>,
): Promise<void> {
  for (const [name, lines] of Object.entries(files)) {
    await mkdir(join(directory, dirname(name)), { recursive: true });
    await writeFile(join(directory, name), lines.join('\n'));
  }
}
