import { X509Certificate } from 'node:crypto';
import type { Socket } from 'node:net';
import {
  checkServerIdentity,
  createSecureContext,
  type PeerCertificate,
  type SecureContext,
} from 'node:tls';
import { roleName, tlsOptionsOf, type Identity, type Renewable } from './identity.ts';

/** A server that ends a connection this soon may not like who has come, milliseconds. */
const EARLY_MS = 1000;

/** What a client shows to agents, and whom it takes for one. */
export class ClientIdentity implements Renewable {
  readonly #onEarlyEnd: ((address: string) => void) | undefined;
  #context: SecureContext;
  #notAfterMs: number;

  /**
   * @param options.onEarlyEnd told of a server that ended a connection as soon as it was made: in
   *   TLS 1.3 it looks at the client's certificate only then, and says nothing of what it saw
   */
  constructor(
    identity: Identity,
    options: { readonly onEarlyEnd?: (address: string) => void } = {},
  ) {
    this.#onEarlyEnd = options.onEarlyEnd;
    this.#context = createSecureContext(tlsOptionsOf(identity));
    this.#notAfterMs = endOf(identity);
  }

  /** The newest identity, as TLS wants it. */
  get context(): SecureContext {
    return this.#context;
  }

  renew(identity: Identity): void {
    this.#context = createSecureContext(tlsOptionsOf(identity));
    this.#notAfterMs = endOf(identity);
  }

  /**
   * To be called before a connection is made: a server would hang up without a word.
   *
   * @throws when the certificate has ended
   */
  requireCurrent(): void {
    if (this.#notAfterMs > Date.now()) return;
    const end = new Date(this.#notAfterMs).toISOString();
    throw new Error(`the certificate of this node ended ${end}`);
  }

  /**
   * Looks at the first moments of a connection.
   *
   * @param secured what TLS made of it
   * @param remote where it goes
   */
  watchStart(secured: Socket, remote: Pick<Socket, 'remoteAddress' | 'remotePort'>): void {
    const onEarlyEnd = this.#onEarlyEnd;
    if (onEarlyEnd === undefined) return;
    const address = `${remote.remoteAddress ?? ''}:${remote.remotePort ?? ''}`;
    const report = (): void => {
      // Where this side has ended it, its own end was sent by now.
      if (!secured.writableEnded) onEarlyEnd(address);
    };
    secured.once('end', report);
    setTimeout(() => secured.off('end', report), EARLY_MS).unref();
  }
}

/** Accepts a server with the role "agent", whatever address it was dialled at; for TLS. */
export function checkAgentIdentity(_host: string, certificate: PeerCertificate): Error | undefined {
  return checkServerIdentity(roleName('agent'), certificate);
}

function endOf(identity: Identity): number {
  return Date.parse(new X509Certificate(identity.certificate).validTo);
}
