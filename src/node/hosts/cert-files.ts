import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** Certificates beside a missing hosts.toml, as docker lays them out. Names, not paths. */
export interface CertFiles {
  readonly ca: readonly string[];
  /** Certificate and key; the certificate twice where it has no key beside it. */
  readonly client: readonly (readonly [string, string])[];
}

/** Finds what containerd loads where there is no hosts.toml: *.crt, and *.cert with *.key. */
export async function findCertFiles(directory: string): Promise<CertFiles> {
  const names = (await readdir(directory)).toSorted();
  const isFile = await Promise.all(
    names.map((name) =>
      stat(join(directory, name)).then(
        (found) => !found.isDirectory(),
        () => true,
      ),
    ),
  );
  const files = names.filter((_, index) => isFile[index]);
  return {
    ca: files.filter((name) => name.endsWith('.crt')),
    client: files
      .filter((name) => name.endsWith('.cert'))
      .map((name) => {
        const key = `${name.slice(0, -'.cert'.length)}.key`;
        return [name, files.includes(key) ? key : name];
      }),
  };
}

/** A hosts.toml that says the same; it takes their place as soon as there is one. */
export function certFilesAsToml({ ca, client }: CertFiles): string {
  const lines = [
    ...(ca.length === 0 ? [] : [`ca = ${JSON.stringify(ca)}`]),
    ...(client.length === 0 ? [] : [`client = ${JSON.stringify(client)}`]),
  ];
  return lines.map((line) => `${line}\n`).join('');
}
