import { join } from 'node:path';
import { createAuthority } from '../../src/rpc/certificates.ts';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { buildImage, type Image } from '../support/image.ts';
import type { BlobFile } from '../support/layer.ts';
import { freePort } from '../support/ports.ts';
import { pushImage } from '../support/push.ts';
import type { TestScope } from '../support/test-scope.ts';
import type { ProgramPath } from '../support/program-path.ts';
import type { BlobReadPlan } from './blob-reader.ts';
import { nameMembers, startSalvorNode, type SalvorNode } from './salvor-node.ts';

const mib = 1024 * 1024;
const repository = 'bench/blobs';
/** The name of an upstream that refuses connections. */
const deadUpstream = 'down.test:5000';

/** One upstream with a big and a middling blob, one node that holds both, one that holds none. */
export interface BlobScene {
  readonly upstream: DockerRegistry;
  readonly big: BlobFile;
  readonly middling: BlobFile;
  /** Sends. */
  readonly holder: SalvorNode;
  /** Is asked by the client. */
  readonly reader: SalvorNode;
  /** How a blob is read through Salvor: from the upstream, or in its outage from the holder. */
  salvorPlan(source: BlobSourceName, blob: BlobFile): Pick<BlobReadPlan, 'port' | 'path'>;
  /** Path of a blob at the upstream itself. */
  upstreamPath(blob: BlobFile): string;
}

export type BlobSourceName = 'upstream' | 'peer';

export interface BlobSceneOptions {
  readonly progress: (line: string) => void;
  readonly nodeArguments?: readonly string[];
  readonly program: ProgramPath;
}

/** Sets all of it up; it ends with the scope. */
export async function startBlobScene(
  scope: TestScope,
  options: BlobSceneOptions,
): Promise<BlobScene> {
  options.progress('blobs: making and pushing blobs of 1 GiB and 256 MiB');
  const upstream = await startDockerRegistry(scope, { name: 'blob-upstream' });
  const image = await buildImage({
    directory: join(scope.directory, 'image'),
    compression: 'none',
    layers: [
      { randomBytes: 1024 * mib, seed: 'big' },
      { randomBytes: 256 * mib, seed: 'middling' },
    ],
  });
  await pushImage({ baseUrl: upstream.url, repository, tag: 'v1' }, image);
  const [big, middling] = layersOf(image);
  options.progress('blobs: starting nodes');
  const authority = await createAuthority();
  const members = await nameMembers(['holder', 'reader']);
  const upstreams = {
    [upstream.host]: { url: upstream.url },
    [deadUpstream]: { url: `http://127.0.0.1:${await freePort()}` },
  };
  const start = async (name: string, blobs: readonly BlobFile[]): Promise<SalvorNode> => {
    const agentAddress = members.find((member) => member.name === name)!.address;
    const { nodeArguments = [], program } = options;
    const node = { name, agentAddress, members, upstreams, blobs, nodeArguments, program };
    return startSalvorNode(scope, node, authority);
  };
  const holder = await start('holder', [big, middling]);
  const reader = await start('reader', []);
  const upstreamPath = (blob: BlobFile): string => `/v2/${repository}/blobs/${blob.digest}`;
  return {
    upstream,
    big,
    middling,
    holder,
    reader,
    upstreamPath,
    salvorPlan: (source, blob) => {
      const ns = source === 'upstream' ? upstream.host : deadUpstream;
      return { port: reader.registryPort, path: `${upstreamPath(blob)}?ns=${ns}` };
    },
  };
}

function layersOf(image: Image): [BlobFile, BlobFile] {
  const files = image.blobs.filter((blob) => 'path' in blob);
  return [files[0]!, files[1]!];
}
