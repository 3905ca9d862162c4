import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');
const imageFiles = join(root, 'packaging', 'image');
// Of Debian, Fedora and Alpine.
const authorityFiles = ['/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt'];
/** Found by name at run time, so no program says that it needs them. */
const lookedUp = ['libnss_files.so.2', 'libnss_dns.so.2', 'libresolv.so.2'];

/** What goes into a root filesystem. */
export interface RootFilesystemOptions {
  /** Made; must not exist or be empty. */
  readonly directory: string;
  /** The built program, such as dist/. */
  readonly program: string;
  /** The Node binary; this process's own unless told. */
  readonly node?: string;
}

interface LockedPackage {
  readonly version?: string;
  readonly dev?: boolean;
  readonly devOptional?: boolean;
}

/**
 * Makes the root filesystem of the container image without a container engine: the same files at
 * the same places as the Dockerfile, with the C library of this machine.
 *
 * @throws when a package that the program needs is not installed in the version of the lock file
 */
export function buildRootFilesystem(options: RootFilesystemOptions): void {
  const { directory, node = process.execPath, program } = options;
  const application = join(directory, 'opt', 'salvor');
  for (const each of ['proc', 'sys', 'dev', 'tmp', 'run', 'var/lib', 'etc/ssl/certs']) {
    mkdirSync(join(directory, each), { recursive: true });
  }
  mkdirSync(join(application, 'node_modules'), { recursive: true });
  copyFileSync(join(root, 'package.json'), join(application, 'package.json'));
  copyFileSync(join(root, 'LICENSE'), join(application, 'LICENSE'));
  cpSync(program, join(application, 'dist'), { recursive: true });
  copyPackages(application);
  execFileSync(join(imageFiles, 'prune.sh'), [application]);
  place(realpathSync(node), join(directory, 'usr', 'local', 'bin', 'node'));
  place(join(imageFiles, 'salvor'), join(directory, 'usr', 'local', 'bin', 'salvor'));
  for (const binary of ['node', 'salvor'])
    chmodSync(join(directory, 'usr/local/bin', binary), 0o755);
  copyLibraries(node, directory);
  for (const name of ['passwd', 'group']) {
    copyFileSync(join(imageFiles, name), join(directory, 'etc', name));
  }
  writeFileSync(join(directory, 'etc', 'nsswitch.conf'), 'hosts: files dns\n');
  const authorities = authorityFiles.find((file) => existsSync(file));
  if (authorities !== undefined) {
    copyFileSync(authorities, join(directory, 'etc/ssl/certs/ca-certificates.crt'));
  }
}

/** @returns the size of all files below a directory, in bytes */
export function sizeBytes(directory: string): number {
  const [size] = execFileSync('du', ['-sb', directory], { encoding: 'utf8' }).split('\t');
  return Number(size);
}

function copyPackages(application: string): void {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    readonly packages: Readonly<Record<string, LockedPackage>>;
  };
  for (const [path, { dev, devOptional, version }] of Object.entries(lock.packages)) {
    if (path === '' || dev === true || devOptional === true) continue;
    const source = join(root, path);
    const found = installedVersion(source);
    if (found !== version) {
      throw new Error(
        `Cannot put ${path} into the image: ${version} is locked, ${found ?? 'none'} is ` +
          'installed; run `npm ci`',
      );
    }
    cpSync(source, join(application, path), {
      recursive: true,
      // Packages inside of it are in the lock file by themselves.
      filter: (each) => each === source || !each.slice(source.length).includes('/node_modules'),
    });
  }
}

function installedVersion(directory: string): string | undefined {
  const path = join(directory, 'package.json');
  if (!existsSync(path)) return undefined;
  return (JSON.parse(readFileSync(path, 'utf8')) as { version?: string }).version;
}

function copyLibraries(binary: string, directory: string): void {
  const output = execFileSync('ldd', [binary], { encoding: 'utf8' });
  const needed = [...output.matchAll(/(?:=> )?(\/\S+) \(0x/g)].map((match) => match[1]!);
  const places = new Set(needed.map((path) => dirname(path)));
  const extra = [...places].flatMap((place) => lookedUp.map((name) => join(place, name)));
  for (const path of [...needed, ...extra.filter((each) => existsSync(each))]) {
    place(realpathSync(path), join(directory, path));
  }
}

function place(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to);
  chmodSync(to, statSync(from).mode & 0o777);
}
