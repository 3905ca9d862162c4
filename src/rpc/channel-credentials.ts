import type { Socket } from 'node:net';
import { ChannelCredentials, credentials } from '@grpc/grpc-js';
import { checkAgentIdentity, ClientIdentity } from './client-identity.ts';
import type { Identity, Renewable } from './identity.ts';

type CreateConnector = ChannelCredentials['_createSecureConnector'];
type SecureConnector = ReturnType<CreateConnector>;

/**
 * Credentials of a client that accepts only a server of the same authority with the role "agent",
 * whatever address it was dialled at. They can take another identity; open connections go on with
 * the old one.
 */
export class MutualChannelCredentials extends ChannelCredentials implements Renewable {
  /** The same for connections that are not of gRPC. */
  readonly identity: ClientIdentity;
  #current: ChannelCredentials;

  /** @param options as of {@link ClientIdentity} */
  constructor(
    identity: Identity,
    options: { readonly onEarlyEnd?: (address: string) => void } = {},
  ) {
    super();
    this.identity = new ClientIdentity(identity, options);
    this.#current = channelOf(this.identity);
  }

  renew(identity: Identity): void {
    this.identity.renew(identity);
    this.#current = channelOf(this.identity);
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return other === this;
  }

  override _createSecureConnector(...parameters: Parameters<CreateConnector>): SecureConnector {
    // Made anew for each connection, so that it is made with the newest identity.
    const connector = (): SecureConnector => this.#current._createSecureConnector(...parameters);
    const first = connector();
    return {
      waitForReady: () => first.waitForReady(),
      getCallCredentials: () => first.getCallCredentials(),
      destroy: () => first.destroy(),
      connect: async (socket: Socket) => {
        try {
          this.identity.requireCurrent();
        } catch (error) {
          socket.destroy();
          throw error;
        }
        const result = await connector().connect(socket);
        this.identity.watchStart(result.socket, socket);
        return result;
      },
    };
  }
}

function channelOf(identity: ClientIdentity): ChannelCredentials {
  return credentials.createFromSecureContext(identity.context, {
    checkServerIdentity: checkAgentIdentity,
  });
}
