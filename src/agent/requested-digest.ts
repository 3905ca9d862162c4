import { status } from '@grpc/grpc-js';
import { parseDigest, type Digest } from '../oci/digest.ts';
import { RpcFailure } from './rpc-failure.ts';

/** @throws RpcFailure when the text of a request is no digest */
export function requestedDigest(text: string): Digest {
  const digest = parseDigest(text);
  if (digest.ok) return digest.value;
  throw new RpcFailure(status.INVALID_ARGUMENT, digest.reason);
}
