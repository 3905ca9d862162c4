import { mkdir, writeFile } from 'node:fs/promises';
import { Agent } from 'node:http';
import { join } from 'node:path';
import { createAuthority } from '../../src/rpc/certificates.ts';
import { startDeafPort } from '../support/deaf-port.ts';
import type { DockerRegistry } from '../support/docker-registry.ts';
import { startFaultProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { buildImage, type Blob, type Image } from '../support/image.ts';
import type { BlobFile } from '../support/layer.ts';
import { get } from '../support/oci-client.ts';
import { pushImage } from '../support/push.ts';
import type { TestScope } from '../support/test-scope.ts';
import {
  nameMembers,
  startSalvorNode,
  waitUntilObserved,
  type SalvorNode,
  type SalvorNodeOptions,
} from './salvor-node.ts';

/** The registry as images name it: behind a proxy that breaks it, or never broken. */
export type RegistryName = 'dark.test:5000' | 'well.test:5000';

/**
 * How the registry falls silent. `dropped`: like behind a firewall that drops everything, so that
 * open connections say nothing more and new ones are neither accepted nor refused. `silent`: it
 * accepts connections and never says a word.
 */
export type Darkness = 'dropped' | 'silent';

/** An image of its own for every pull. */
export interface TaggedImage {
  readonly repository: string;
  readonly tag: string;
  readonly mediaType: string;
  /** Manifest, config and layer, as files. */
  readonly files: readonly BlobFile[];
}

/** One answer to a node's client. */
export interface Pulled {
  /** From the request to the answer's head, milliseconds. */
  readonly headersMs: number;
  /** "upstream", "node/<name>" or "memory". */
  readonly source: string;
}

/** One registry under two names, one node that holds images, one that has never had them. */
export interface OutageScene {
  readonly reader: SalvorNode;
  /** GET of a tag at the reader, over connections that are kept. */
  pull(registry: RegistryName, image: TaggedImage): Promise<Pulled>;
  /** Path with query of a tag at the reader. */
  path(registry: RegistryName, image: TaggedImage): string;
  /** From now on dark.test says nothing more. */
  fallSilent(darkness: Darkness): Promise<void>;
}

/** Makes images of the same shape and pushes them; no two share a layer or a config. */
export async function pushTaggedImages(
  registry: DockerRegistry,
  options: { readonly directory: string; readonly count: number },
): Promise<TaggedImage[]> {
  const { directory } = options;
  const images: TaggedImage[] = [];
  for (let index = 0; index < options.count; index += 1) {
    const seed = `image ${index}`;
    const image = await buildImage({ directory, layers: [{ randomBytes: 10_000, seed }] });
    const place = { repository: `bench/outage-${index}`, tag: 'v1' };
    await pushImage({ baseUrl: registry.url, ...place }, image);
    const files = await filesOf(image, directory);
    images.push({ ...place, mediaType: image.mediaType, files });
  }
  return images;
}

/**
 * Sets two nodes up; they end with the scope.
 *
 * @param options.held what one node has pulled through dark.test while that was well
 */
export async function startOutageScene(
  scope: TestScope,
  options: {
    readonly registry: DockerRegistry;
    readonly held: readonly TaggedImage[];
    readonly program: NonNullable<SalvorNodeOptions['program']>;
  },
): Promise<OutageScene> {
  const { held, program, registry } = options;
  const proxy = await startFaultProxy(scope, { targetPort: registry.port });
  const upstreams: Record<RegistryName, object> = {
    'dark.test:5000': { url: proxy.url },
    'well.test:5000': { url: registry.url },
  };
  const members = await nameMembers(['holder', 'reader']);
  const authority = await createAuthority();
  const start = async (index: number, blobs: readonly BlobFile[]): Promise<SalvorNode> => {
    const { name, address: agentAddress } = members[index]!;
    const node = { name, agentAddress, members, upstreams, blobs, program };
    return startSalvorNode(scope, node, authority);
  };
  const holder = await start(
    0,
    held.flatMap(({ files }) => files),
  );
  const reader = await start(1, []);
  const agent = new Agent({ keepAlive: true });
  scope.defer(() => agent.destroy());
  const pull = async (from: SalvorNode, path: string, accept: string): Promise<Pulled> => {
    const url = `http://127.0.0.1:${from.registryPort}${path}`;
    const answer = await get(url, { headers: { accept }, agent });
    const source = answer.headers['salvor-source'];
    if (answer.status !== 200 || typeof source !== 'string') {
      throw new Error(`Cannot get ${url}: status ${answer.status}, ${answer.body.toString()}`);
    }
    return { headersMs: answer.headersMs, source };
  };
  const names: string[] = [];
  for (const image of held) {
    await pull(holder, pathOf('dark.test:5000', image), image.mediaType);
    names.push(`dark.test:5000/${image.repository}:${image.tag}`);
  }
  await waitUntilObserved(holder.socket, names);
  return {
    reader,
    path: pathOf,
    pull: async (from, image) => pull(reader, pathOf(from, image), image.mediaType),
    fallSilent: async (darkness) => silence(scope, proxy, darkness),
  };
}

async function silence(scope: TestScope, proxy: FaultProxy, darkness: Darkness): Promise<void> {
  await proxy.setMode({ kind: 'blackhole' });
  if (darkness === 'silent') return;
  proxy.leavePort();
  await startDeafPort(scope, proxy.port);
}

function pathOf(registry: RegistryName, { repository, tag }: TaggedImage): string {
  return `/v2/${repository}/manifests/${tag}?ns=${registry}`;
}

/** What is in memory goes to disk, where a node's store can take it from. */
async function filesOf(image: Image, directory: string): Promise<BlobFile[]> {
  await mkdir(directory, { recursive: true });
  const manifest: Blob = { digest: image.digest, size: image.size, data: image.manifest };
  const files: BlobFile[] = [];
  for (const blob of [manifest, ...image.blobs]) {
    if ('path' in blob) {
      files.push(blob);
      continue;
    }
    const { data, digest, size } = blob;
    const path = join(directory, digest.replace(':', '-'));
    await writeFile(path, data);
    files.push({ digest, size, path });
  }
  return files;
}
