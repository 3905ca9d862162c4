import { status } from '@grpc/grpc-js';
import type { PeerCertificate } from 'node:tls';
import { rolesOf, type Role } from '../rpc/identity.ts';
import type { Logger } from '../telemetry/logger.ts';
import { Seldom } from '../telemetry/seldom.ts';
import { hostOf } from './host-share.ts';
import { RpcFailure } from './rpc-failure.ts';

export type PeerMethod =
  'stat' | 'read' | 'resolve' | 'list' | 'reportCorrupt' | 'inventory' | 'reach';

/** What other nodes' processes may call over mutual TLS. */
export const PEER_ROLES: Readonly<Record<PeerMethod, readonly Role[]>> = {
  stat: ['agent', 'registry'],
  read: ['agent', 'registry'],
  resolve: ['agent'],
  list: ['agent'],
  reportCorrupt: ['agent', 'registry'],
  inventory: ['agent'],
  reach: ['agent'],
};

/** Who asks for something. */
export interface Caller {
  /** "host:port". */
  getPeer(): string;
  /** What TLS knows of it. */
  getAuthContext(): { readonly sslPeerCertificate?: PeerCertificate };
}

/** Sees to it that nobody is answered what is not for the roles in its certificate. */
export class CallerRoles {
  readonly #allowed: Readonly<Record<PeerMethod, readonly Role[]>> | undefined;
  readonly #log: Logger;
  readonly #seldom = new Seldom({ intervalMs: 60_000, maxKeys: 1000 });

  /** @param allowed who may ask what; undefined: the one who listens has seen to that */
  constructor(
    allowed: Readonly<Record<PeerMethod, readonly Role[]>> | undefined,
    dependencies: { readonly log: Logger },
  ) {
    this.#allowed = allowed;
    this.#log = dependencies.log;
  }

  /** @throws RpcFailure when it may not */
  require(method: PeerMethod, caller: Caller): void {
    const allowed = this.#allowed?.[method];
    if (allowed === undefined) return;
    const roles = rolesOf(caller.getAuthContext().sslPeerCertificate);
    if (allowed.some((role) => roles.has(role))) return;
    const remote = caller.getPeer();
    const host = hostOf(caller);
    const named = [...roles].join(' and ') || 'none';
    const why = `it is for the role ${allowed.join(' or ')}, and the certificate names ${named}`;
    if (this.#seldom.isDue(`${method} ${host} ${named}`)) {
      this.#log.warn({ method, remote, why }, 'refused a call of another node');
    }
    const message = `${method} is not for this certificate's role: ${why}`;
    throw new RpcFailure(status.PERMISSION_DENIED, message);
  }
}
