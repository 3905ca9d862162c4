import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { issueIdentity, type Authority } from '../../src/rpc/certificates.ts';

/** PEM files of a node's certificate, as the configuration names them. */
export type IdentityPaths = Readonly<Record<'ca' | 'certificate' | 'key', string>>;

/** Where {@link writeIdentity} puts them in a directory. */
export function identityPaths(directory: string): IdentityPaths {
  return {
    ca: join(directory, 'ca.crt'),
    certificate: join(directory, 'tls.crt'),
    key: join(directory, 'tls.key'),
  };
}

/**
 * Issues a certificate for a node, agent and registry in one, and writes it to a directory.
 *
 * @param options.addresses at which clients that know nothing of roles may ask it; none unless told
 */
export async function writeIdentity(
  directory: string,
  authority: Authority,
  options: { readonly addresses?: readonly string[] } = {},
): Promise<IdentityPaths> {
  const identity = await issueIdentity(authority, ['agent', 'registry'], options);
  const paths = identityPaths(directory);
  await mkdir(directory, { recursive: true });
  await writeFile(paths.ca, identity.ca);
  await writeFile(paths.certificate, identity.certificate);
  await writeFile(paths.key, identity.key, { mode: 0o600 });
  return paths;
}
