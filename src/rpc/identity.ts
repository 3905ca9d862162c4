import { X509Certificate, createPrivateKey } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import {
  checkServerIdentity,
  createSecureContext,
  type PeerCertificate,
  type SecureContextOptions,
} from 'node:tls';
import { ChannelCredentials, ServerCredentials, credentials } from '@grpc/grpc-js';
import { roleName, rolesIn, type Role } from './identity-roles.ts';

export { roleName, type Role } from './identity-roles.ts';

/**
 * AES with 128 bits first: as safe for the lifetime of these bytes, and a quarter less work than
 * 256, which shows where every byte of a blob passes through it twice.
 */
const CIPHERS = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256';
/** A server that ends a connection this soon may not like who has come, milliseconds. */
const EARLY_MS = 1000;

/**
 * For a client to get through TLS, milliseconds. Nodes need a few round trips; Node.js would wait
 * for two minutes, and hold some 50 KiB meanwhile.
 */
export const HANDSHAKE_MS = 5000;

const READ_TRIES = 10;
const READ_PAUSE_MS = 100;

/** A process's own certificate and the authority that it trusts, PEM. */
export interface Identity {
  readonly ca: Buffer;
  readonly certificate: Buffer;
  readonly key: Buffer;
}

/** Credentials that can take another identity; open connections go on with the old one. */
export interface Renewable {
  /** @throws when TLS cannot be made of it; the old one stays */
  renew(identity: Identity): void;
}

/**
 * Reads an identity from its three PEM files. Where key and certificate are not of each other it
 * looks again for a while, as somebody may just be replacing them.
 *
 * @throws when a file cannot be read, or they stay so; the message holds nothing of the key
 */
export async function readIdentity(paths: {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}): Promise<Identity> {
  for (let tries = 1; ; tries += 1) {
    const [ca, certificate, key] = await Promise.all(
      [paths.ca, paths.certificate, paths.key].map((path) => readFile(path)),
    );
    const identity = { ca, certificate, key } as Identity;
    if (isPair(identity)) return identity;
    if (tries === READ_TRIES) {
      throw new Error(
        `Cannot use the identity: the key in ${paths.key} is not that of the certificate in ` +
          paths.certificate,
      );
    }
    await delay(READ_PAUSE_MS);
  }
}

function isPair({ certificate, key }: Identity): boolean {
  try {
    return new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key));
  } catch {
    return false;
  }
}

/**
 * Credentials of a server that only talks TLS 1.3 and only to clients of the same authority.
 *
 * @param options.handshakeMs for a client to get through TLS; 5 s where left out
 */
export function mutualServerCredentials(
  identity: Identity,
  options: { readonly handshakeMs?: number } = {},
): ServerCredentials & Renewable {
  return new MutualServerCredentials(identity, options.handshakeMs ?? HANDSHAKE_MS);
}

/**
 * Credentials of a client that accepts only a server of the same authority with the role "agent",
 * whatever address it was dialled at.
 *
 * @param options.onEarlyEnd told of a server that ended a connection as soon as it was made: in
 *   TLS 1.3 it looks at the client's certificate only then, and says nothing of what it saw
 */
export function mutualChannelCredentials(
  identity: Identity,
  options: { readonly onEarlyEnd?: (address: string) => void } = {},
): ChannelCredentials & Renewable {
  return new MutualChannelCredentials(identity, options);
}

/** @returns every role that a peer's verified certificate names */
export function rolesOf(certificate: PeerCertificate | undefined): ReadonlySet<Role> {
  return rolesIn(certificate?.subjectaltname);
}

/** What both ends of a connection are set up with. */
export function tlsOptionsOf(identity: Identity): SecureContextOptions {
  return {
    ca: identity.ca,
    cert: identity.certificate,
    key: identity.key,
    minVersion: 'TLSv1.3',
    ciphers: CIPHERS,
  };
}

class MutualServerCredentials extends ServerCredentials implements Renewable {
  constructor(identity: Identity, handshakeMs: number) {
    super(
      { requestCert: true, rejectUnauthorized: true, handshakeTimeout: handshakeMs },
      tlsOptionsOf(identity),
    );
  }

  renew(identity: Identity): void {
    const options = tlsOptionsOf(identity);
    // The server would only log that it cannot use them, and refuse everybody from then on.
    createSecureContext(options);
    this.updateSecureContextOptions(options);
  }

  override _equals(other: ServerCredentials): boolean {
    return other === this;
  }
}

type CreateConnector = ChannelCredentials['_createSecureConnector'];
type SecureConnector = ReturnType<CreateConnector>;

class MutualChannelCredentials extends ChannelCredentials implements Renewable {
  readonly #onEarlyEnd: ((address: string) => void) | undefined;
  #current: ChannelCredentials;
  #notAfterMs: number;

  constructor(identity: Identity, options: { readonly onEarlyEnd?: (address: string) => void }) {
    super();
    this.#onEarlyEnd = options.onEarlyEnd;
    this.#current = channelOf(identity);
    this.#notAfterMs = endOf(identity);
  }

  renew(identity: Identity): void {
    this.#current = channelOf(identity);
    this.#notAfterMs = endOf(identity);
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
        // The server would hang up without a word.
        if (this.#notAfterMs <= Date.now()) {
          socket.destroy();
          const end = new Date(this.#notAfterMs).toISOString();
          throw new Error(`the certificate of this node ended ${end}`);
        }
        const result = await connector().connect(socket);
        this.#watchStart(result.socket, socket);
        return result;
      },
    };
  }

  #watchStart(secured: Socket, socket: Socket): void {
    const onEarlyEnd = this.#onEarlyEnd;
    if (onEarlyEnd === undefined) return;
    const address = `${socket.remoteAddress ?? ''}:${socket.remotePort ?? ''}`;
    const report = (): void => {
      // Where this side has ended it, its own end was sent by now.
      if (!secured.writableEnded) onEarlyEnd(address);
    };
    secured.once('end', report);
    setTimeout(() => secured.off('end', report), EARLY_MS).unref();
  }
}

function endOf(identity: Identity): number {
  return Date.parse(new X509Certificate(identity.certificate).validTo);
}

function channelOf(identity: Identity): ChannelCredentials {
  return credentials.createFromSecureContext(createSecureContext(tlsOptionsOf(identity)), {
    checkServerIdentity: (_host: string, certificate: PeerCertificate) =>
      checkServerIdentity(roleName('agent'), certificate),
  });
}
