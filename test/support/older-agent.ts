import {
  Client,
  Server,
  ServerCredentials,
  credentials,
  type ChannelCredentials,
  type MethodDefinition,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceError,
  type UntypedServiceImplementation,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { join } from 'node:path';
import { loadSync } from '@grpc/proto-loader';
import { issueIdentity, type Authority } from '../../src/rpc/certificates.ts';
import { roleName } from '../../src/rpc/identity.ts';
import { mutualServerCredentials } from './grpc-credentials.ts';
import type { TestScope } from './test-scope.ts';

/** Where the wire protocol lies as the version before this one spoke it. */
export const previousProtocol = join(
  import.meta.dirname,
  '../wire/previous/salvor/agent/v1/agent.proto',
);

type Definition = MethodDefinition<object, object>;
type Service = Readonly<Record<string, Definition>>;

/** How both sides of an older agent are reached. */
export interface OlderAgentOptions {
  readonly service: 'Peer' | 'Local';
  /** "host:port" or "unix:/path" of the agent that does the work. */
  readonly target: string;
  /** The same of the older one. */
  readonly listen: string;
  /** Of both, for peers; unix sockets are plain. */
  readonly authority?: Authority;
}

/**
 * An agent of the version before this one: what it does is done by one of today, of which only the
 * older calls can be made, with the older messages; fields that those have not get lost on the way,
 * in both directions.
 */
export class OlderAgent {
  /** Names of the calls that were made, in order. */
  readonly calls: string[] = [];
  readonly #server = new Server();
  readonly #client: Client;

  private constructor(options: OlderAgentOptions, channel: ChannelCredentials) {
    this.#client = new Client(options.target, channel, {
      'grpc.ssl_target_name_override': roleName('agent'),
    });
    const service = olderService(options.service);
    const handlers = Object.entries(service).map(([name, definition]) => [
      name,
      this.#handler(name, definition),
    ]);
    this.#server.addService(service, Object.fromEntries(handlers) as UntypedServiceImplementation);
  }

  /** Starts one that ends with the scope. */
  static async start(scope: TestScope, options: OlderAgentOptions): Promise<OlderAgent> {
    const { authority } = options;
    let server = ServerCredentials.createInsecure();
    let channel = credentials.createInsecure();
    if (authority !== undefined) {
      const { ca, certificate, key } = await issueIdentity(authority, ['agent', 'registry']);
      const pem = { ca: Buffer.from(ca), certificate: Buffer.from(certificate) };
      server = mutualServerCredentials({ ...pem, key: Buffer.from(key) });
      channel = credentials.createSsl(pem.ca, Buffer.from(key), pem.certificate);
    }
    const agent = new OlderAgent(options, channel);
    scope.defer(() => {
      agent.#server.forceShutdown();
      agent.#client.close();
    });
    await new Promise<void>((resolve, reject) => {
      agent.#server.bindAsync(options.listen, server, (error) => {
        if (error === null) resolve();
        else reject(error);
      });
    });
    return agent;
  }

  #handler(name: string, definition: Definition): unknown {
    const { path, requestStream, responseStream } = definition;
    const serialize = definition.requestSerialize;
    const deserialize = definition.responseDeserialize;
    const client = this.#client;
    if (!requestStream && !responseStream) {
      return (call: ServerUnaryCall<object, object>, answer: sendUnaryData<object>) => {
        this.calls.push(name);
        client.makeUnaryRequest(path, serialize, deserialize, call.request, (error, value) =>
          answer(error, value),
        );
      };
    }
    if (!requestStream) {
      return (call: ServerWritableStream<object, object>) => {
        this.calls.push(name);
        const source = client.makeServerStreamRequest(path, serialize, deserialize, call.request);
        call.on('cancelled', () => source.cancel());
        source.on('error', (error: ServiceError) => call.destroy(error));
        source.pipe(call as unknown as NodeJS.WritableStream);
      };
    }
    return (call: ServerReadableStream<object, object>, answer: sendUnaryData<object>) => {
      this.calls.push(name);
      const sink = client.makeClientStreamRequest(path, serialize, deserialize, (error, value) =>
        answer(error, value),
      );
      call.on('cancelled', () => sink.cancel());
      call.pipe(sink as unknown as NodeJS.WritableStream);
    };
  }
}

function olderService(name: string): Service {
  const loaded = loadSync(previousProtocol, { longs: String, enums: String, defaults: false });
  return loaded[`salvor.agent.v1.${name}`] as unknown as Service;
}
