import { chmod, chown, lstat, mkdir, readFile, readdir, readlink, symlink } from 'node:fs/promises';
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { bakedTrees } from './baked-trees.ts';

/** A file with its text, a link, or an empty directory; odd modes and owners where they matter. */
export type TreeEntry =
  | string
  | { readonly text: string | Buffer; readonly mode?: number; readonly owner?: number }
  | { readonly link: string }
  | { readonly directoryMode: number };

/** What somebody may have below containerd's config_path. */
export interface CertsTree {
  readonly name: string;
  /** Below the tree; "certs.d" unless told. */
  readonly roots?: readonly string[];
  readonly version?: string;
  readonly entries: Readonly<Record<string, TreeEntry>>;
  /** Registries that containerd asks Salvor for; `_default` for all others. */
  readonly joined: readonly string[];
  /** Why each of the others is left alone, by file or directory. */
  readonly left?: Readonly<Record<string, string>>;
  /** What the registry is told, where that is the point. */
  readonly settings?: unknown;
}

export interface TreePems {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

const harbor = 'https://harbor.test/v2/hub';
const harborHost = (extra = ''): string =>
  `[host."${harbor}"]\ncapabilities = ["pull", "resolve"]\noverride_path = true\n${extra}`;
const mirror = (extra = ''): string =>
  `[host."https://mirror.test"]\ncapabilities = ["pull", "resolve"]\n${extra}`;
const mirrorEndpoint = { url: 'https://mirror.test', namespace: true };
const hubEndpoint = { url: 'https://registry-1.docker.io' };

/** Thirty and some trees, from nothing at all to what nobody would write on purpose. */
export function certsTrees({ ca, cert, key }: TreePems): readonly CertsTree[] {
  return [
    { name: 'no root', entries: {}, joined: ['_default'] },
    {
      name: 'an empty root',
      entries: { 'certs.d': { directoryMode: 0o750 } },
      joined: ['_default'],
    },
    {
      name: 'an empty directory',
      entries: { 'certs.d/docker.io': { directoryMode: 0o700 } },
      joined: ['docker.io', '_default'],
      settings: { mirrors: [], upstreams: {} },
    },
    {
      name: 'an authority beside no hosts.toml',
      entries: { 'certs.d/a.test/corp.crt': ca, 'certs.d/a.test/b.crt': { text: ca, mode: 0o600 } },
      joined: ['a.test', '_default'],
      settings: {
        upstreams: { 'a.test': { endpoints: [{ url: 'https://a.test', ca: /\.ca\.pem$/ }] } },
      },
    },
    {
      name: 'a client certificate with its key',
      entries: {
        'certs.d/a.test/n.cert': cert,
        'certs.d/a.test/n.key': { text: key, mode: 0o400 },
      },
      joined: ['a.test', '_default'],
      settings: {
        upstreams: {
          'a.test': { endpoints: [{ clientCertificate: /\.client\.pem$/, clientKey: /\.key$/ }] },
        },
      },
    },
    {
      name: 'a client certificate that holds its key, and an empty hosts.toml',
      entries: { 'certs.d/a.test/n.cert': `${cert}\n${key}`, 'certs.d/a.test/hosts.toml': '' },
      joined: ['a.test', '_default'],
    },
    {
      name: 'a certificate that is none',
      entries: { 'certs.d/a.test/n.crt': 'nothing' },
      joined: ['_default'],
      left: { 'a.test': 'holds no certificate' },
    },
    {
      name: 'a company mirror with override_path and a secret header',
      entries: {
        'certs.d/docker.io/hosts.toml': {
          text: `server = "https://registry-1.docker.io"\n\n${harborHost(
            `[host."${harbor}".header]\nAuthorization = "Basic c2VjcmV0"\n`,
          )}`,
          mode: 0o600,
        },
      },
      joined: ['docker.io', '_default'],
      settings: {
        mirrors: [],
        upstreams: {
          'docker.io': {
            endpoints: [{ url: harbor, namespace: true, headersFile: /\.headers$/ }, hubEndpoint],
          },
        },
      },
    },
    {
      name: 'headers with other tables in between',
      entries: {
        'certs.d/a.test/hosts.toml': `${mirror()}[host."https://b.test"]\n[host."https://mirror.test".header]\nX-Key = ["c2VjcmV0"]\n[host."https://b.test".header]\nX-Other = 'c2VjcmV0'\n`,
      },
      joined: ['a.test', '_default'],
      settings: {
        upstreams: {
          'a.test': {
            endpoints: [
              { ...mirrorEndpoint, headersFile: /\.headers$/ },
              { url: 'https://b.test', namespace: true, headersFile: /\.headers$/ },
              { url: 'https://a.test' },
            ],
          },
        },
      },
    },
    {
      name: 'headers of the registry itself',
      entries: { 'certs.d/a.test/hosts.toml': `[header]\nX-Key = "c2VjcmV0"\n${mirror()}` },
      joined: ['a.test', '_default'],
    },
    {
      name: 'broken TOML beside a sound file',
      entries: {
        'certs.d/a.test/hosts.toml': '[host."https://c2VjcmV0\n',
        'certs.d/b.test/hosts.toml': mirror(),
      },
      joined: ['b.test', '_default'],
      left: { 'a.test': 'it is not TOML' },
    },
    {
      name: 'a capability that does not exist',
      entries: { 'certs.d/a.test/hosts.toml': '[host."https://m.test"]\ncapabilities = ["pul"]\n' },
      joined: ['_default'],
      left: { 'a.test': 'capability "pul"' },
    },
    {
      name: 'a key that nobody knows',
      entries: { 'certs.d/a.test/hosts.toml': mirror('timeout = "3s"\n') },
      joined: ['_default'],
      left: { 'a.test': 'the key "timeout"' },
    },
    {
      name: 'directories that are links to one',
      entries: {
        'shared/hosts.toml': { text: mirror(), owner: 1000 },
        'certs.d/a.test': { link: '../shared' },
        'certs.d/b.test': { link: '../shared' },
      },
      joined: ['a.test', 'b.test', '_default'],
      settings: {
        upstreams: {
          'a.test': { endpoints: [mirrorEndpoint, { url: 'https://a.test' }] },
          'b.test': { endpoints: [mirrorEndpoint, { url: 'https://b.test' }] },
        },
      },
    },
    {
      name: 'a root that is a link',
      entries: { 'real/a.test/hosts.toml': mirror(), 'certs.d': { link: 'real' } },
      joined: ['a.test', '_default'],
    },
    {
      name: 'a hosts.toml that is a link',
      entries: {
        'company/hub.toml': { text: harborHost(), mode: 0o640, owner: 1000 },
        'certs.d/docker.io/hosts.toml': { link: '../../company/hub.toml' },
      },
      joined: ['docker.io', '_default'],
    },
    {
      name: 'links that lead nowhere',
      entries: {
        'certs.d/a.test/hosts.toml': { link: 'gone.toml' },
        'certs.d/b.test': { link: '/nowhere/at/all' },
        'certs.d/c.test': { link: 'c.test' },
      },
      joined: ['a.test', '_default'],
      left: { 'b.test': 'leads nowhere', 'c.test': 'leads nowhere' },
    },
    {
      name: 'two roots with directories',
      roots: ['certs.d', 'docker'],
      entries: {
        'certs.d/a.test/hosts.toml': mirror(),
        'docker/a.test/hosts.toml': mirror(),
        'docker/b.test/n.crt': ca,
      },
      joined: ['a.test', 'b.test', '_default'],
      left: { 'docker/a.test': 'another directory for a.test comes first' },
    },
    {
      name: 'two roots, the first with a _default',
      roots: ['certs.d', 'docker'],
      entries: { 'certs.d/_default': { directoryMode: 0o755 }, 'docker/b.test/n.crt': ca },
      joined: ['_default'],
      left: { 'docker/b.test': 'containerd never gets past' },
    },
    {
      name: 'two roots, the second missing',
      roots: ['certs.d', 'docker'],
      entries: { 'certs.d/a.test/hosts.toml': mirror() },
      joined: ['a.test', '_default'],
    },
    {
      name: 'skip_verify',
      entries: {
        'certs.d/a.test/hosts.toml': '[host."https://m.test"]\nskip_verify = true\n',
        'certs.d/b.test/hosts.toml': '[host."http://m.test:5000"]\nskip_verify = true\n',
        'certs.d/c.test/hosts.toml': '[host."https://m.test"]\nskip_verify = false\n',
        'certs.d/d.test/hosts.toml':
          'server = "d.test"\nskip_verify = true\n[host."https://m.test"]\n',
      },
      joined: ['b.test', 'c.test', '_default'],
      left: { 'a.test': 'is not verified', 'd.test': 'is not verified' },
    },
    {
      name: 'client certificates in hosts.toml',
      entries: {
        'certs.d/a.test/hosts.toml': mirror(
          'ca = "tls/ca.pem"\nclient = [["tls/c.pem", "tls/k.pem"]]\n',
        ),
        'certs.d/a.test/tls/ca.pem': ca,
        'certs.d/a.test/tls/c.pem': cert,
        'certs.d/a.test/tls/k.pem': key,
        'certs.d/b.test/hosts.toml': mirror('client = "both.pem"\n'),
        'certs.d/b.test/both.pem': `${cert}\n${key}`,
        'certs.d/c.test/hosts.toml': mirror('client = [["a", "b"], ["c", "d"]]\n'),
        'certs.d/d.test/hosts.toml': mirror('ca = ["/nowhere/ca.pem"]\n'),
        'certs.d/e.test/hosts.toml': mirror('client = ["swapped.pem"]\n'),
        'certs.d/e.test/swapped.pem': key,
      },
      joined: ['a.test', 'b.test', '_default'],
      left: {
        'c.test': 'several client certificates',
        'd.test': 'cannot be read',
        'e.test': 'are no pair',
      },
    },
    {
      name: 'directories with ports',
      entries: {
        'certs.d/a.test_5000_/hosts.toml': mirror(),
        'certs.d/a.test:5000/hosts.toml': harborHost(),
        'certs.d/b.test:5000/hosts.toml': mirror(),
        'certs.d/[2001:db8::1]_5000_/hosts.toml': mirror(),
      },
      joined: ['a.test:5000', 'b.test:5000', '[2001:db8::1]:5000', '_default'],
      left: { 'a.test:5000/': 'another directory for a.test:5000 comes first' },
    },
    {
      name: 'read-only files, odd modes and owners',
      entries: {
        'certs.d/a.test/hosts.toml': { text: mirror(), mode: 0o444 },
        'certs.d/b.test/hosts.toml': { text: mirror(), mode: 0o4670, owner: 12345 },
        'certs.d/c.test/hosts.toml': { text: mirror(), mode: 0o000 },
        'certs.d/d.test': { directoryMode: 0o500 },
      },
      joined: ['a.test', 'b.test', 'c.test', 'd.test', '_default'],
    },
    {
      name: 'line ends of another system',
      entries: {
        'certs.d/a.test/hosts.toml': `server = "https://a.test"\r\n\r\n${mirror().replaceAll('\n', '\r\n')}`,
      },
      joined: ['a.test', '_default'],
    },
    {
      name: 'a byte order mark, and bytes that are no text',
      entries: {
        'certs.d/a.test/hosts.toml': `\ufeff${mirror()}`,
        'certs.d/b.test/hosts.toml': { text: Buffer.from([0x23, 0x20, 0xff, 0xfe, 0x0a]) },
      },
      joined: ['_default'],
      left: { 'a.test': 'byte order mark', 'b.test': 'not UTF-8' },
    },
    {
      name: 'comments in all scripts, no line end at the end',
      entries: {
        'certs.d/a.test/hosts.toml': `# Größe: 日本語, עברית 🚢\n${mirror()}# [host."https://not.test"]\n# Ende ✓`,
      },
      joined: ['a.test', '_default'],
    },
    {
      name: 'large files',
      entries: {
        'certs.d/a.test/hosts.toml': `${mirror()}${'# nothing to see here\n'.repeat(20_000)}`,
        'certs.d/b.test/hosts.toml': `${mirror()}${'# nothing to see here\n'.repeat(60_000)}`,
      },
      joined: ['a.test', '_default'],
      left: { 'b.test': 'bytes' },
    },
    {
      name: 'a server and no host',
      version: '2.0.0',
      entries: { 'certs.d/docker.io/hosts.toml': `server = "${harbor}"\noverride_path = true` },
      joined: ['docker.io', '_default'],
      settings: {
        upstreams: {
          'docker.io': { endpoints: [{ url: harbor, namespace: true, credentials: 'forward' }] },
        },
      },
    },
    {
      name: 'a server and no host, of which 1.6 thinks nothing',
      version: '1.6.20',
      entries: {
        'certs.d/docker.io/hosts.toml': `server = "${harbor}"\noverride_path = true\n`,
        'certs.d/a.test/hosts.toml': '# nothing yet\n',
      },
      joined: ['a.test', '_default'],
      left: { 'docker.io': 'it names no host' },
    },
    {
      name: 'a company mirror of everything',
      entries: {
        'certs.d/_default/hosts.toml': mirror(),
        'certs.d/a.test': { directoryMode: 0o755 },
        'certs.d/docker.io/hosts.toml': harborHost(),
      },
      joined: ['a.test', 'docker.io', '_default'],
      settings: {
        mirrors: [mirrorEndpoint],
        upstreams: {
          'a.test': {},
          'docker.io': { endpoints: [{ url: harbor, namespace: true }, hubEndpoint] },
        },
      },
    },
    {
      name: 'one server for everything',
      entries: {
        'certs.d/_default/hosts.toml': `server = "https://all.test"\n${mirror()}`,
        'certs.d/a.test/hosts.toml': mirror(),
      },
      joined: ['a.test'],
      left: { _default: 'redirects every registry' },
    },
    {
      name: 'certificates for everything',
      entries: { 'certs.d/_default/corp.crt': ca },
      joined: [],
      left: { _default: 'certificates for all registries' },
    },
    {
      name: 'texts and lists that look like tables',
      entries: {
        'certs.d/a.test/hosts.toml': `capabilities = [\n[].length]\n`,
        'certs.d/b.test/hosts.toml': `ca = [\n"one.crt",\n]\n[host."https://mirror.test".header]\nX = """\\\n  [host.'https://no.test']"""\n`,
        'certs.d/b.test/one.crt': ca,
      },
      joined: ['b.test', '_default'],
      left: { 'a.test': 'it is not TOML' },
    },
    {
      name: 'Salvor, entered by hand',
      entries: {
        'certs.d/_default/hosts.toml':
          '[host."http://localhost:7480"]\ncapabilities = ["pull", "resolve"]\n',
        'certs.d/a.test/hosts.toml': mirror(),
      },
      joined: ['a.test', '_default'],
      settings: {
        mirrors: [],
        upstreams: { 'a.test': { endpoints: [mirrorEndpoint, { url: 'https://a.test' }] } },
      },
    },
    {
      name: 'what other tools left behind',
      entries: {
        'certs.d/_backup/docker.io/hosts.toml': mirror(),
        'certs.d/README': 'do not touch',
        'certs.d/lost+found': { directoryMode: 0o700 },
        'certs.d/.hidden/hosts.toml': mirror(),
        'certs.d/a.test/hosts.toml/x': 'a directory',
      },
      joined: ['_default'],
      left: {
        _backup: 'no image name',
        'lost+found': 'no image name',
        '.hidden': 'no image name',
        'a.test': 'it is no file',
      },
    },
    {
      name: 'mirrors that cannot do it all',
      entries: {
        'certs.d/a.test/hosts.toml': '[host."https://m.test"]\ncapabilities = ["pull"]\n',
        'certs.d/b.test/hosts.toml': 'host = { "https://m.test" = { capabilities = ["pull"] } }\n',
        'certs.d/c.test/hosts.toml': '[host."https://m.test"]\noverride_path = true\n',
        'certs.d/d.test/hosts.toml': '[host."http://m.test"]\nca = "x"\n',
        'certs.d/e.test/hosts.toml':
          '[host."https://m.test"]\n[host."https://m.test".header]\nHost = "x"\n',
        'certs.d/f.test/hosts.toml': '[host."ftp://m.test"]\n',
        'certs.d/g.test/hosts.toml': '[host."https://u:c2VjcmV0@m.test"]\n',
      },
      joined: ['_default'],
      left: {
        'a.test': 'only the capabilities pull',
        'b.test': 'not a table of its own',
        'c.test': 'at the root of the host',
        'd.test': 'http but has certificates',
        'e.test': 'the header Host',
        'f.test': 'not an http or https URL',
        'g.test': 'a user',
      },
    },
    {
      name: 'registries on the machine itself',
      entries: {
        'certs.d/localhost_5000_': { directoryMode: 0o755 },
        'certs.d/127.0.0.1_5001_/hosts.toml':
          'server = "http://127.0.0.1:5001"\n[host."http://127.0.0.1:5002"]\n',
      },
      joined: ['127.0.0.1:5001', '_default'],
      left: { localhost_5000_: 'speaks https' },
    },
    ...bakedTrees,
  ];
}

/** Makes a tree below a directory. */
export async function plantTree(directory: string, tree: CertsTree): Promise<void> {
  for (const [path, entry] of Object.entries(tree.entries)) {
    const target = join(directory, path);
    if (typeof entry !== 'string' && 'directoryMode' in entry) {
      await mkdir(target, { recursive: true });
      await chmod(target, entry.directoryMode);
      continue;
    }
    await mkdir(dirname(target), { recursive: true });
    if (typeof entry !== 'string' && 'link' in entry) {
      await symlink(entry.link, target);
      continue;
    }
    const { text, mode = 0o644, owner = 0 } = typeof entry === 'string' ? { text: entry } : entry;
    await writeFile(target, text);
    await chown(target, owner, owner);
    await chmod(target, mode);
  }
}

/** Everything about a tree that can be told: kinds, bytes, modes, owners, links, dates of files. */
export async function describeTree(directory: string): Promise<Record<string, string>> {
  const described: Record<string, string> = {};
  for (const path of (await readdir(directory, { recursive: true })).toSorted()) {
    const full = join(directory, path);
    const found = await lstat(full);
    const who = `${found.mode.toString(8)} ${found.uid}:${found.gid}`;
    if (found.isSymbolicLink()) described[path] = `link ${who} ${await readlink(full)}`;
    else if (found.isDirectory()) described[path] = `directory ${who}`;
    else
      described[path] = `file ${who} ${found.mtimeMs} ${(await readFile(full)).toString('base64')}`;
  }
  return described;
}
