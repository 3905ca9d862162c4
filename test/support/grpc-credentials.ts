import { ServerCredentials } from '@grpc/grpc-js';
import type { Identity } from '../../src/rpc/identity.ts';

/** Credentials of a server of grpc-js's own, that lets in clients of the same authority. */
export function mutualServerCredentials(identity: Identity): ServerCredentials {
  const { ca, certificate, key } = identity;
  return ServerCredentials.createSsl(ca, [{ cert_chain: certificate, private_key: key }], true);
}
