import { createAuthority } from '../../src/rpc/certificates.ts';
import {
  contentsOf,
  faultImage,
  manifestType,
  pushTo,
  type FaultImage,
} from '../faults/matrix/fault-image.ts';
import { checkedDigest, repository } from '../faults/matrix/scene.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { startFaultProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { MemoryRegistry } from '../support/memory-registry.ts';
import { freePort } from '../support/ports.ts';
import type { SeededRandom } from '../support/random.ts';
import type { TestScope } from '../support/test-scope.ts';

export const registryName = 'soak.test';
const nodeNames = ['x', 'y', 'z'];
const imageCount = 36;
/** Frees garbage often, so that what is in use can be told from it. */
const nodeArguments = [
  '--expose-gc',
  '--import',
  'data:text/javascript,setInterval(gc, 3000).unref()',
];
const layerSizes = [2_000, 200_000, 1_200_000, 3_000_000];

/** An image and the nodes that have pulled it. */
export interface SoakImage extends FaultImage {
  readonly holders: readonly string[];
}

/** Three nodes, a registry behind a proxy, and images of which some nodes have some. */
export interface World {
  readonly nodes: readonly DirectoryNode[];
  readonly proxy: FaultProxy;
  readonly images: readonly SoakImage[];
}

export async function startWorld(scope: TestScope, random: SeededRandom): Promise<World> {
  const registry = await MemoryRegistry.start(scope);
  const proxy = await startFaultProxy(scope, { targetPort: registry.port });
  const authority = await createAuthority();
  const members: { name: string; address: string }[] = [];
  for (const name of nodeNames) members.push({ name, address: `127.0.0.1:${await freePort()}` });
  const upstreams = { [registryName]: { url: proxy.url } };
  const nodes: DirectoryNode[] = [];
  for (const { name, address } of members) {
    const options = { name, agentAddress: address, members, upstreams, nodeArguments };
    nodes.push(await DirectoryNode.create(scope, options, authority));
  }
  const images = Array.from({ length: imageCount }, (_, index): SoakImage => {
    const image = faultImage(`soak ${random.next()}`, { layerBytes: random.pick(layerSizes) });
    // Every ninth image is nowhere, the others on one or two of three nodes.
    const [first, second] = shuffled(nodeNames, random);
    const holders = index % 9 === 8 ? [] : index % 3 === 0 ? [first!] : [first!, second!];
    return { ...image, holders };
  });
  for (const node of nodes) await node.startAgent();
  for (const image of images) {
    pushTo(registry, image);
    for (const node of nodes) if (image.holders.includes(node.name)) await pullInto(node, image);
  }
  for (const node of nodes) await node.startRegistry();
  return { nodes, proxy, images };
}

async function pullInto(node: DirectoryNode, image: FaultImage): Promise<void> {
  for (const { digest, bytes } of contentsOf(image)) await node.hold(digest, bytes);
  await node.observe(`${registryName}/${repository}:${image.tag}`, {
    digest: checkedDigest(image.manifest.digest),
    mediaType: manifestType,
    sizeBytes: image.manifest.bytes.length,
    observedAtMs: Date.now() - 60_000,
  });
}

function shuffled<T>(items: readonly T[], random: SeededRandom): T[] {
  return items
    .map((item) => ({ item, at: random.next() }))
    .sort((left, right) => left.at - right.at)
    .map(({ item }) => item);
}
