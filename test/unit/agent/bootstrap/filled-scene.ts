import type { Descriptor } from '../../../../src/oci/descriptor.ts';
import { digestOf, type Digest } from '../../../../src/oci/digest.ts';
import { MEDIA_TYPE } from '../../../../src/oci/media-type.ts';
import {
  createAuthority,
  issueIdentity,
  type Authority,
} from '../../../../src/rpc/certificates.ts';
import type { Identity } from '../../../../src/rpc/identity.ts';
import { arm64, type MadeImage } from '../inventory/memory-store.ts';
import {
  BootstrapScene,
  type Ask,
  type BootstrapSceneOptions,
  type Got,
} from './bootstrap-scene.ts';

export const repository = 'team/salvor';
export const name = `registry.test/${repository}`;
export const ns = '?ns=registry.test';
export const dayMs = 86_400_000;

/** Those of one authority. */
export interface Identities {
  readonly authority: Authority;
  readonly server: Identity;
  readonly client: Identity;
}

let made: Promise<Identities> | undefined;

/** The same ones in all tests of a file. */
export async function identities(): Promise<Identities> {
  made ??= (async () => {
    const authority = await createAuthority();
    const server = await issueIdentity(authority, ['agent'], { addresses: ['127.0.0.1'] });
    return { authority, server, client: await issueIdentity(authority, ['bootstrap']) };
  })();
  return made;
}

/** A listener and what its node has. */
export interface Filled extends AsyncDisposable {
  readonly scene: BootstrapScene;
  readonly image: MadeImage;
  /** The target of the tag. */
  readonly index: Descriptor;
  readonly foreign: MadeImage;
  /** Asks as a node that may ask, unless told. */
  readonly ask: (path: string, ask?: Ask) => Promise<Got>;
}

/** A listener whose node has an image that may be read, and one that may not. */
export async function filled(options: Partial<BootstrapSceneOptions> = {}): Promise<Filled> {
  const { client, server } = await identities();
  const scene = await BootstrapScene.start(server, { repositories: [name], ...options });
  const image = scene.store.addManifest('salvor');
  const missing = { ...image.target, digest: digestOf(Buffer.from('arm')), platform: arm64 };
  const index = scene.store.addIndex([{ ...image.target }, missing]);
  scene.store.name(`${name}:1.0`, index);
  const foreign = scene.store.addManifest('secret');
  scene.store.name('registry.test/team/secret:1.0', foreign.target);
  return {
    scene,
    image,
    index,
    foreign,
    ask: (path, given = {}) => scene.ask(path, { identity: client, ...given }),
    [Symbol.asyncDispose]: () => scene[Symbol.asyncDispose](),
  };
}

export const manifests = (reference: string): string => `/v2/${repository}/manifests/${reference}`;
export const blobs = (digest: string): string => `/v2/${repository}/blobs/${digest}`;

/** An image with one layer of these bytes. */
export function addLayer(scene: BootstrapScene, bytes: Buffer): Digest {
  const layer = scene.store.add(bytes, 'application/vnd.oci.image.layer.v1.tar');
  const { config } = scene.store.addManifest('of a layer');
  const json = ({ digest, mediaType, sizeBytes: size }: typeof layer): object => ({
    digest,
    mediaType,
    size,
  });
  const manifest = { schemaVersion: 2, config: json(config), layers: [json(layer)] };
  const target = scene.store.add(
    { ...manifest, mediaType: MEDIA_TYPE.ociManifest },
    MEDIA_TYPE.ociManifest,
  );
  scene.store.name(`${name}:layer`, target);
  return layer.digest;
}
