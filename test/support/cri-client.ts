import { join } from 'node:path';
import { credentials, loadPackageDefinition, type Client, type ServiceError } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

/** Credentials as kubelet passes them on. Without a server address they go to whoever asks. */
export interface CriAuth {
  readonly username?: string;
  readonly password?: string;
  readonly serverAddress?: string;
  readonly identityToken?: string;
  readonly registryToken?: string;
}

/** An image as the runtime describes it. */
export interface CriImage {
  /** Digest of its config. */
  readonly id: string;
  readonly repoTags: readonly string[];
  readonly repoDigests: readonly string[];
  readonly size: string;
}

type Call = (
  request: object,
  options: { readonly deadline: Date },
  callback: (error: ServiceError | null, response: unknown) => void,
) => unknown;

type CallableClient = Client & Readonly<Record<string, Call | undefined>>;
type ClientConstructor = new (address: string, credentials: unknown) => CallableClient;

/** Talks to a runtime as kubelet does. */
export class CriClient {
  readonly #images: CallableClient;
  readonly #runtime: CallableClient;

  constructor(socketPath: string) {
    const definition = loadSync(join(import.meta.dirname, 'proto', 'cri.proto'));
    const { runtime } = loadPackageDefinition(definition) as unknown as {
      runtime: { v1: { ImageService: ClientConstructor; RuntimeService: ClientConstructor } };
    };
    const address = `unix://${socketPath}`;
    this.#images = new runtime.v1.ImageService(address, credentials.createInsecure());
    this.#runtime = new runtime.v1.RuntimeService(address, credentials.createInsecure());
  }

  /** @throws when the runtime does not answer in time */
  async version(options: { readonly timeoutMs: number }): Promise<string> {
    const answer = await call(this.#runtime, 'Version', { request: {}, ...options });
    return (answer as { runtimeVersion: string }).runtimeVersion;
  }

  /** @returns the reference under which the image now is known */
  async pullImage(
    image: string,
    options: { readonly auth?: CriAuth; readonly timeoutMs: number },
  ): Promise<string> {
    const request = { image: { image }, ...(options.auth && { auth: options.auth }) };
    const answer = await call(this.#images, 'PullImage', { request, timeoutMs: options.timeoutMs });
    return (answer as { imageRef: string }).imageRef;
  }

  /** @returns undefined when there is no such image */
  async imageStatus(
    image: string,
    options: { readonly timeoutMs: number },
  ): Promise<CriImage | undefined> {
    const request = { image: { image } };
    const answer = await call(this.#images, 'ImageStatus', { request, ...options });
    return (answer as { image?: CriImage | null }).image ?? undefined;
  }

  async listImages(options: { readonly timeoutMs: number }): Promise<readonly CriImage[]> {
    const answer = await call(this.#images, 'ListImages', { request: {}, ...options });
    return (answer as { images?: CriImage[] }).images ?? [];
  }

  /** Removes every name of the image. Harmless when there is none. */
  async removeImage(image: string, options: { readonly timeoutMs: number }): Promise<void> {
    await call(this.#images, 'RemoveImage', { request: { image: { image } }, ...options });
  }

  close(): void {
    this.#images.close();
    this.#runtime.close();
  }
}

async function call(
  client: CallableClient,
  method: string,
  { request, timeoutMs }: { readonly request: object; readonly timeoutMs: number },
): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const deadline = new Date(Date.now() + timeoutMs);
  client[method]?.(request, { deadline }, (error, response) => {
    if (error === null) resolve(response);
    else reject(new Error(`Cannot call ${method}: ${error.details}`, { cause: error }));
  });
  return promise;
}
