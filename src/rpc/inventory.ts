import type { Platform } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { TagStatement } from './agent-protocol.ts';

/** What one part of an image is. */
export type PartRole = 'index' | 'manifest' | 'config' | 'layer';

/** A blob that an image needs on one platform. */
export interface ImagePart {
  readonly role: PartRole;
  readonly digest: Digest;
  /** As its descriptor says. */
  readonly sizeBytes: number;
  /** A layer that clients fetch from elsewhere first: its descriptor has URLs. */
  readonly isForeign: boolean;
}

/** What an image needs on one platform, as far as one node could tell. */
export interface PlatformTree {
  /** Undefined where neither the index nor the config says. */
  readonly platform: Platform | undefined;
  /** The index says so itself, which is what a node chooses by. */
  readonly isDeclared: boolean;
  readonly manifest: Digest;
  /** From the target down: indexes, the manifest, then config and layers if it was read. */
  readonly parts: readonly ImagePart[];
  /** The manifest was read, so that the parts are all there are. */
  readonly isRead: boolean;
  /** Why the manifest, which is there, could not be read. */
  readonly problem?: string;
  /** The snapshotter that mounted the image without fetching its layers. */
  readonly lazySnapshotter?: string;
}

/** What a digest that images name leads to. Platforms are in the order of the index. */
export interface ImageTree {
  readonly root: Digest;
  readonly mediaType: string;
  readonly sizeBytes: number;
  readonly platforms: readonly PlatformTree[];
  /** Why nothing, or not everything, can be said; the target may be missing. */
  readonly problem?: string;
}

/** A name in a node's store. */
export interface InventoryImage {
  /** "registry/repository:tag", "registry/repository@digest", or what somebody made up. */
  readonly name: string;
  /** What the store says that it points at; undefined where that makes no sense. */
  readonly target: TagStatement | undefined;
  /** A container on the node was made from it. */
  readonly isInUse: boolean;
  /** Why its target is no image that could be walked. */
  readonly problem?: string;
}

/** A blob on a node's disk. */
export interface NodeBlob {
  readonly sizeBytes: number;
  /** Hashed since it was last written. */
  readonly isVerified: boolean;
  /** Its bytes are known to be wrong, so that the node does not serve it. */
  readonly isCorrupt: boolean;
  /** An image or a lease keeps it; otherwise the next garbage collection takes it. */
  readonly isKept: boolean;
}

/** Something about a node that keeps images from being served. */
export interface NodeWarning {
  /** Stable, such as "lazy_snapshotter". */
  readonly code: string;
  readonly message: string;
}

/** What a node says of itself. */
export interface NodeFacts {
  readonly node: string;
  /** "containerd" or "directory". */
  readonly store: string;
  readonly runtimeVersion: string;
  /** What images are unpacked with; empty where that could not be seen. */
  readonly snapshotter: string;
  /** Images were found whose layers nothing keeps after unpacking. */
  readonly discardsLayers: boolean;
  readonly warnings: readonly NodeWarning[];
  /** Milliseconds since the epoch, by the node's clock. */
  readonly walkedAtMs: number;
  /** Registries that have answered this node's registry. */
  readonly registriesSeen: readonly string[];
}

/** Everything that one node has, at one moment. */
export interface NodeInventory {
  readonly facts: NodeFacts;
  readonly blobs: ReadonlyMap<Digest, NodeBlob>;
  readonly images: readonly InventoryImage[];
  /** By target. */
  readonly trees: ReadonlyMap<Digest, ImageTree>;
  /** What the upstream confirmed about tags, by name, images of that name or not. */
  readonly observed: ReadonlyMap<string, TagStatement>;
}

/** How much of an image is on one node. */
export type PlatformState = 'complete' | 'partial' | 'index-only';

/** Whether a node has a part and may serve it: there, of the right size, not known to be wrong. */
export function isServable(part: ImagePart, blob: NodeBlob | undefined): blob is NodeBlob {
  return blob !== undefined && !blob.isCorrupt && blob.sizeBytes === part.sizeBytes;
}

/**
 * How much of an image a node has, and which parts it lacks. Other platforms of an index are
 * normally "index-only": their manifests are listed and not there.
 */
export function platformState(
  platform: PlatformTree,
  blobs: NodeInventory['blobs'],
): { readonly state: PlatformState; readonly missing: readonly ImagePart[] } {
  const missing = platform.parts.filter((part) => !isServable(part, blobs.get(part.digest)));
  const hasManifest = blobs.has(platform.manifest);
  if (!hasManifest) return { state: 'index-only', missing };
  return { state: platform.isRead && missing.length === 0 ? 'complete' : 'partial', missing };
}

/** Writes a platform as people do: "linux/amd64", "linux/arm/v7", "windows/amd64 10.0.17763". */
export function formatPlatform(platform: Platform | undefined): string {
  if (platform === undefined) return 'unknown';
  const { os, architecture, variant, osVersion } = platform;
  const name = [os, architecture, ...(variant === undefined ? [] : [variant])].join('/');
  return osVersion === undefined ? name : `${name} ${osVersion}`;
}
