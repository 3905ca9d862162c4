import { chmod, chown, mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Identity, Role } from '../rpc/identity.ts';
import { readState, writeState, type AuthorityState } from './authority-state.ts';
import type { AuthorityStore, IdentityStore } from './identity-store.ts';

const AUTHORITY_FILE = 'authority.json';
const SECRET_MODE = 0o600;
const PUBLIC_MODE = 0o644;

/** An authority in a file that only its owner may read. */
export class DirectoryAuthority implements AuthorityStore {
  readonly name: string;
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    this.name = directory;
  }

  async read(): Promise<AuthorityState | undefined> {
    const content = await readIfThere(join(this.#directory, AUTHORITY_FILE));
    return content === undefined ? undefined : readState(content.toString());
  }

  async write(state: AuthorityState): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    await replaceAll([
      [join(this.#directory, AUTHORITY_FILE), Buffer.from(writeState(state)), SECRET_MODE],
    ]);
  }
}

/** An identity as ca.crt, tls.crt and tls.key in a directory. */
export class DirectoryIdentity implements IdentityStore {
  readonly name: string;
  readonly roles: readonly Role[];

  constructor(directory: string, roles: readonly Role[]) {
    this.name = directory;
    this.roles = roles;
  }

  async read(): Promise<Identity | undefined> {
    const [ca, certificate, key] = await Promise.all(
      ['ca.crt', 'tls.crt', 'tls.key'].map((file) => readIfThere(join(this.name, file))),
    );
    if (ca === undefined && certificate === undefined && key === undefined) return undefined;
    const none = Buffer.alloc(0);
    return { ca: ca ?? none, certificate: certificate ?? none, key: key ?? none };
  }

  async write(identity: Identity): Promise<void> {
    await mkdir(this.name, { recursive: true, mode: 0o755 });
    // Trust first: whoever reads in between must not refuse the others.
    await replaceAll([
      [join(this.name, 'ca.crt'), identity.ca, PUBLIC_MODE],
      [join(this.name, 'tls.key'), identity.key, SECRET_MODE],
      [join(this.name, 'tls.crt'), identity.certificate, PUBLIC_MODE],
    ]);
  }
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** All are on disk before the first one counts. A file that is replaced keeps owner and mode. */
async function replaceAll(files: readonly (readonly [string, Buffer, number])[]): Promise<void> {
  for (const [path, content, mode] of files) {
    const before = await stat(path).catch(() => undefined);
    await writeFile(`${path}.new`, content, { mode: before?.mode ?? mode, flush: true });
    await chmod(`${path}.new`, (before?.mode ?? mode) & 0o777);
    if (before !== undefined) await chown(`${path}.new`, before.uid, before.gid);
  }
  for (const [path] of files) await rename(`${path}.new`, path);
}
