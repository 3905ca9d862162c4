import { Agent, request, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import type { Platform } from '../../oci/descriptor.ts';
import { parseErrorBody } from '../../oci/error-body.ts';
import { MANIFEST_ACCEPT } from '../../oci/media-type.ts';
import { within } from '../../telemetry/within.ts';

/** The most that is read of an error's body, bytes. */
const MAX_ERROR_BYTES = 64 * 1024;

/** What a proof asks for, as containerd would. */
export interface ProofQuestion {
  readonly registry: string;
  readonly repository: string;
  readonly kind: 'manifests' | 'blobs';
  /** A tag or a digest. */
  readonly reference: string;
  /** Whom the image is for. */
  readonly platform: Platform;
}

/** An answer that gives what was asked for. */
export interface ProofAnswer {
  readonly headers: IncomingHttpHeaders;
  readonly chunks: AsyncIterable<Buffer>;
  /** Lets go of what was not read. May be called at any time, also twice. */
  readonly cancel: () => void;
}

/** What a new node would need cannot be had, or not as it has to be. */
export class ProofError extends Error {
  override readonly name = 'ProofError';
}

/** Asks the registry on this node, on its socket for proofs. */
export class ProofClient {
  readonly #socketPath: string;
  readonly #stepTimeoutMs: number;
  readonly #agent: Agent;

  /**
   * @param options.stepTimeoutMs for the headers of one answer, and for each next piece of a body
   * @param options.maxSockets how many questions may be under way at a time
   */
  constructor(options: {
    readonly socketPath: string;
    readonly stepTimeoutMs: number;
    readonly maxSockets: number;
  }) {
    this.#socketPath = options.socketPath;
    this.#stepTimeoutMs = options.stepTimeoutMs;
    this.#agent = new Agent({ keepAlive: true, maxSockets: options.maxSockets });
  }

  /**
   * @throws ProofError when the registry does not give it; the signal's reason when it aborts;
   *   another error when the registry cannot be asked at all
   */
  async head(question: ProofQuestion, signal: AbortSignal): Promise<IncomingHttpHeaders> {
    const response = await this.#ask('HEAD', question, signal);
    response.resume();
    if (response.statusCode === 200) return response.headers;
    // Why, only a GET says.
    const { cancel } = await this.get(question, signal);
    cancel();
    throw new ProofError(`answered ${response.statusCode} to HEAD`);
  }

  /** @throws as {@link head} */
  async get(question: ProofQuestion, signal: AbortSignal): Promise<ProofAnswer> {
    const response = await this.#ask('GET', question, signal);
    if (response.statusCode !== 200) {
      const reason = await readReason(this.#chunksOf(response, signal));
      throw new ProofError(reason ?? `answered ${response.statusCode}`);
    }
    response.on('error', () => undefined);
    const cancel = (): void => {
      // What was read to its end keeps its connection.
      if (!response.complete) response.destroy();
    };
    return { headers: response.headers, chunks: this.#chunksOf(response, signal), cancel };
  }

  /** Closes what is open. */
  close(): void {
    this.#agent.destroy();
  }

  async #ask(
    method: 'GET' | 'HEAD',
    question: ProofQuestion,
    signal: AbortSignal,
  ): Promise<IncomingMessage> {
    const { kind, platform, reference, registry, repository } = question;
    const { os, architecture } = platform;
    const place = encodeURIComponent(reference).replaceAll('%3A', ':');
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const outgoing = request({
      method,
      socketPath: this.#socketPath,
      agent: this.#agent,
      path: `/v2/${repository}/${kind}/${place}?ns=${encodeURIComponent(registry)}`,
      headers: {
        accept: kind === 'manifests' ? MANIFEST_ACCEPT : '*/*',
        // A node's registry knows no more of its platform.
        'salvor-platform': `${os}/${architecture}`,
      },
      signal,
    });
    outgoing.once('response', resolve);
    outgoing.on('error', (error) =>
      reject(signal.aborted ? signal.reason : cannotAsk(error, this.#socketPath)),
    );
    outgoing.end();
    const response = await within(this.#stepTimeoutMs, promise);
    if (response !== undefined) return response;
    promise.catch(() => undefined);
    outgoing.destroy();
    throw new ProofError(`gave no answer within ${this.#stepTimeoutMs} ms`);
  }

  async *#chunksOf(response: IncomingMessage, signal: AbortSignal): AsyncGenerator<Buffer> {
    const chunks = response[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    try {
      for (;;) {
        const next = await within(this.#stepTimeoutMs, chunks.next());
        if (next === undefined) {
          throw new ProofError(`sent nothing for ${this.#stepTimeoutMs} ms`);
        }
        if (next.done === true) return;
        yield next.value;
      }
    } catch (error) {
      if (error instanceof ProofError) throw error;
      signal.throwIfAborted();
      throw new ProofError('broke off in the middle', { cause: error });
    }
  }
}

function cannotAsk(error: Error, socketPath: string): Error {
  const { code = '' } = error as NodeJS.ErrnoException;
  if (code === 'ECONNRESET' || code === 'EPIPE')
    return new ProofError('broke off', { cause: error });
  const message = `Cannot ask the registry at ${socketPath}: ${error.message}; is it running here?`;
  return new Error(message, { cause: error });
}

async function readReason(chunks: AsyncIterable<Buffer>): Promise<string | undefined> {
  const parts: Buffer[] = [];
  let sizeBytes = 0;
  for await (const part of chunks) {
    sizeBytes += part.length;
    if (sizeBytes > MAX_ERROR_BYTES) break;
    parts.push(part);
  }
  return parseErrorBody(Buffer.concat(parts))[0]?.message;
}
