import { bootstrapEntry } from '../../src/node/hosts/bootstrap-entry.ts';
import type { CertsTree } from './certs-trees.ts';

// Its files are not there, so that nothing of it could be taken over as a way to a registry.
const baked = bootstrapEntry({
  urls: ['https://10.0.0.1:7492', 'https://10.0.0.2:7492'],
  ca: '/nowhere/ca.crt',
  clientCertificate: '/nowhere/tls.crt',
  clientKey: '/nowhere/tls.key',
});
const mirror = '[host."https://mirror.test"]\ncapabilities = ["pull", "resolve"]\n';
const mirrorEndpoint = { url: 'https://mirror.test', namespace: true };

/** Directories as `salvor hosts bootstrap` leaves them in a machine's image. */
export const bakedTrees: readonly CertsTree[] = [
  {
    name: 'neighbours for all registries',
    entries: { 'certs.d/_default/hosts.toml': baked },
    joined: ['_default'],
    settings: { mirrors: [], upstreams: {} },
  },
  {
    name: 'neighbours, and a containerd that knows no files without hosts',
    version: '1.6.20',
    entries: { 'certs.d/_default/hosts.toml': { text: baked, mode: 0o600, owner: 7 } },
    joined: ['_default'],
    settings: { mirrors: [], upstreams: {} },
  },
  {
    name: 'neighbours for one registry',
    entries: { 'certs.d/docker.io/hosts.toml': baked },
    joined: ['docker.io', '_default'],
    settings: { mirrors: [], upstreams: {} },
  },
  {
    name: 'neighbours before hosts of somebody else',
    entries: {
      'certs.d/_default/hosts.toml': `# ours\n${baked}${mirror}`,
      'certs.d/docker.io/hosts.toml': `server = "https://hub.test"\n${mirror}${baked}# end`,
    },
    joined: ['docker.io', '_default'],
    settings: {
      mirrors: [mirrorEndpoint],
      upstreams: {
        'docker.io': { endpoints: [mirrorEndpoint, { url: 'https://hub.test', namespace: true }] },
      },
    },
  },
  {
    name: 'neighbours with the line ends of Windows',
    entries: { 'certs.d/_default/hosts.toml': baked.replaceAll('\n', '\r\n') },
    joined: ['_default'],
    settings: { mirrors: [], upstreams: {} },
  },
];
