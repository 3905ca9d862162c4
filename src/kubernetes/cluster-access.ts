import { readFile } from 'node:fs/promises';
import type { RequestOptions } from 'node:https';
import { join } from 'node:path';

/** Where the API server is and how to prove who asks. */
export interface ClusterAccess {
  /** Its address, with the path that stands before /api, if any. */
  readonly url: URL;
  /** The namespace that is meant where none is given. */
  readonly namespace: string | undefined;
  /**
   * Credentials and authorities for the next request; read anew each time, since tokens live for
   * an hour.
   *
   * @throws when they cannot be had
   */
  requestOptions(): Promise<RequestOptions>;
}

const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

/**
 * Access as a Pod has it: the address from the environment, token and authority from the files of
 * its service account.
 *
 * @throws when the environment names no API server, or the authority's file cannot be read
 */
export async function inClusterAccess(
  options: {
    readonly env?: Readonly<Record<string, string | undefined>>;
    /** Directory of the service account's files. */
    readonly directory?: string;
  } = {},
): Promise<ClusterAccess> {
  const { env = process.env, directory = SERVICE_ACCOUNT } = options;
  const host = env['KUBERNETES_SERVICE_HOST'];
  const port = env['KUBERNETES_SERVICE_PORT_HTTPS'] ?? env['KUBERNETES_SERVICE_PORT'] ?? '443';
  if (host === undefined || host === '') {
    throw new Error(
      'Cannot find the API server: KUBERNETES_SERVICE_HOST is not set; outside of a Pod give a ' +
        'kubeconfig',
    );
  }
  const readText = (name: string): Promise<string> => readFile(join(directory, name), 'utf8');
  const requestOptions = async (): Promise<RequestOptions> => {
    const [token, ca] = await Promise.all([readText('token'), readText('ca.crt')]);
    return { ca, headers: { authorization: `Bearer ${token.trim()}` } };
  };
  await readText('ca.crt');
  return {
    url: new URL(`https://${host.includes(':') ? `[${host}]` : host}:${port}`),
    namespace: await readText('namespace').then(
      (text) => text.trim(),
      () => undefined,
    ),
    requestOptions,
  };
}
