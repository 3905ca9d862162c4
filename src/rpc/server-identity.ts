import { createSecureContext, type Server, type TlsOptions } from 'node:tls';
import { HANDSHAKE_MS, tlsOptionsOf, type Identity, type Renewable } from './identity.ts';

/**
 * What a server shows to its clients, and whom it lets in: TLS 1.3 alone, and only clients with a
 * certificate of the same authority.
 */
export class ServerIdentity implements Renewable {
  readonly #servers = new Set<Server>();
  #identity: Identity;

  constructor(identity: Identity) {
    this.#identity = identity;
  }

  /** The certificate that servers show, PEM, with its chain. */
  get certificate(): Buffer {
    return this.#identity.certificate;
  }

  /**
   * For a server that is about to be made; give it to {@link keepUpToDate} then.
   *
   * @param limits.handshakeMs for a client to get through TLS; 5 s where left out
   */
  options(limits: { readonly handshakeMs?: number } = {}): TlsOptions {
    return {
      ...tlsOptionsOf(this.#identity),
      requestCert: true,
      rejectUnauthorized: true,
      handshakeTimeout: limits.handshakeMs ?? HANDSHAKE_MS,
    };
  }

  /** Has new connections of a server use the newest identity from now on. */
  keepUpToDate(server: Server): void {
    server.setSecureContext(tlsOptionsOf(this.#identity));
    this.#servers.add(server);
    server.once('close', () => this.#servers.delete(server));
  }

  renew(identity: Identity): void {
    const options = tlsOptionsOf(identity);
    createSecureContext(options);
    this.#identity = identity;
    for (const server of this.#servers) server.setSecureContext(options);
  }
}
