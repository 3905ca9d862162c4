import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestScope } from './test-scope.ts';

/** What a front was asked. */
export interface FrontRequest {
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
}

/**
 * Puts a registry under a path, as Harbor and Artifactory do with the registries that they stand in
 * front of: /v2/hub/library/nginx/… is its /v2/library/nginx/….
 */
export class PrefixFront {
  readonly requests: FrontRequest[] = [];
  /** "http://127.0.0.1:1234/v2/hub" */
  readonly url: string;
  readonly #stop: () => Promise<void>;

  private constructor(url: string, stop: () => Promise<void>) {
    this.url = url;
    this.#stop = stop;
  }

  /**
   * Starts one that ends with the scope.
   *
   * @param options.prefix in place of /v2, such as "/v2/hub"
   * @param options.authorization whoever sends another one gets 401
   */
  static async start(
    scope: TestScope,
    options: {
      readonly targetPort: number;
      readonly prefix: string;
      readonly authorization: string;
    },
  ): Promise<PrefixFront> {
    const { authorization, prefix, targetPort } = options;
    const server = createServer((message, response) => {
      const path = message.url ?? '';
      front.requests.push({ path, headers: message.headers });
      if (message.headers.authorization !== authorization) {
        response.writeHead(401, { 'www-authenticate': 'Basic realm="front"' }).end();
      } else if (!path.startsWith(`${prefix}/`)) {
        response.writeHead(404).end();
      } else {
        pass(message, response, { port: targetPort, path: `/v2${path.slice(prefix.length)}` });
      }
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const front = new PrefixFront(`http://127.0.0.1:${port}${prefix}`, async () => {
      server.closeAllConnections();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    });
    scope.defer(() => front.stop());
    return front;
  }

  /** Refuses connections from now on. */
  async stop(): Promise<void> {
    await this.#stop();
  }
}

function pass(
  message: IncomingMessage,
  response: ServerResponse,
  target: { readonly port: number; readonly path: string },
): void {
  const headers = { ...message.headers };
  delete headers.authorization;
  const asked = request({ host: '127.0.0.1', ...target, method: message.method, headers });
  asked.on('response', (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(response);
    answer.on('error', () => response.destroy());
  });
  asked.on('error', () => {
    if (response.headersSent) response.destroy();
    else response.writeHead(502).end();
  });
  response.on('close', () => asked.destroy());
  asked.end();
}
