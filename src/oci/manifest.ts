import { isJsonObject, parseDescriptor } from './descriptor.ts';
import type { Descriptor, Platform } from './descriptor.ts';
import {
  isImageManifestMediaType,
  isIndexMediaType,
  isManifestMediaType,
  MEDIA_TYPE,
  mediaTypeEssence,
} from './media-type.ts';
import type { Result } from './result.ts';

/** The manifest of one image (or artifact). */
export interface ImageManifest {
  readonly kind: 'image';
  readonly mediaType: string;
  readonly config?: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly subject?: Descriptor;
  readonly artifactType?: string;
}

/** A list of manifests, mostly one for each platform. Attestations are entries like the others. */
export interface IndexManifest {
  readonly kind: 'index';
  readonly mediaType: string;
  readonly manifests: readonly Descriptor[];
}

export type Manifest = ImageManifest | IndexManifest;

/** Nothing larger is read as a manifest; containerd itself stops at about half of it. */
export const MAX_MANIFEST_SIZE_BYTES = 8 * 1024 * 1024;

/** How many layers a manifest, or entries an index, may have. */
export const MAX_MANIFEST_CHILDREN = 4096;

/** Whether bytes are a manifest or an index, whatever they were called. */
export function isManifest(bytes: Uint8Array): boolean {
  // "{": everything else is spared the parser.
  return bytes[0] === 0x7b && parseManifest(bytes).ok;
}

/**
 * Reads a manifest or an index, OCI's or Docker's, by the OCI image specification 1.1.
 *
 * The type is the given one if that is a manifest type, else the document's own, else it follows
 * from the shape. A document that could be read both ways, or that contradicts its type, is
 * refused, because two readers of it could see different images. So are Docker's old signed
 * manifests.
 *
 * @param mediaType a Content-Type, parameters allowed
 */
export function parseManifest(bytes: Uint8Array, mediaType?: string): Result<Manifest> {
  if (bytes.byteLength > MAX_MANIFEST_SIZE_BYTES) {
    return { ok: false, reason: `a manifest has at most ${MAX_MANIFEST_SIZE_BYTES} bytes` };
  }
  const json = parseJson(bytes);
  if (!isJsonObject(json)) {
    return { ok: false, reason: 'not a JSON object' };
  }
  const type = manifestType(json, mediaType);
  if (!type.ok) {
    return type;
  }
  return isIndexMediaType(type.value) ? readIndex(json, type.value) : readImage(json, type.value);
}

type JsonObject = Readonly<Record<string, unknown>>;

function parseJson(bytes: Uint8Array): unknown {
  try {
    // Strict about UTF-8 and byte order marks, because containerd's reader is.
    return JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch {
    return undefined;
  }
}

function manifestType(json: JsonObject, contentType: string | undefined): Result<string> {
  const hasManifests = isPresent(json['manifests']);
  const hasImageParts = isPresent(json['config']) || isPresent(json['layers']);
  if (hasManifests && hasImageParts) {
    return { ok: false, reason: 'both an index and an image manifest' };
  }
  const given = mediaTypeEssence(contentType);
  const own = mediaTypeEssence(
    typeof json['mediaType'] === 'string' ? json['mediaType'] : undefined,
  );
  const type = [given, own].find((candidate) => isManifestMediaType(candidate));
  if (type === undefined) {
    return guessType({ hasManifests, hasImageParts });
  }
  if (!isIndexMediaType(type) && !isImageManifestMediaType(type)) {
    return { ok: false, reason: 'a schema 1 manifest, which is not supported' };
  }
  const wrongShape = isIndexMediaType(type) ? hasImageParts : hasManifests;
  const wrongOwnType = isManifestMediaType(own) && isIndexMediaType(own) !== isIndexMediaType(type);
  return wrongShape || wrongOwnType
    ? { ok: false, reason: `the document is not what its type ${type} says` }
    : { ok: true, value: type };
}

function guessType(shape: { hasManifests: boolean; hasImageParts: boolean }): Result<string> {
  if (shape.hasManifests) {
    return { ok: true, value: MEDIA_TYPE.ociIndex };
  }
  return shape.hasImageParts
    ? { ok: true, value: MEDIA_TYPE.ociManifest }
    : { ok: false, reason: 'neither an index nor an image manifest' };
}

function readIndex(json: JsonObject, mediaType: string): Result<IndexManifest> {
  const manifests = readDescriptors(json['manifests'], 'manifests');
  return manifests.ok
    ? { ok: true, value: { kind: 'index', mediaType, manifests: manifests.value } }
    : manifests;
}

function readImage(json: JsonObject, mediaType: string): Result<ImageManifest> {
  if (!isPresent(json['config']) && !isPresent(json['layers'])) {
    return { ok: false, reason: 'an image manifest with neither config nor layers' };
  }
  const config = readOptionalDescriptor(json['config']);
  if (!config.ok) {
    return config;
  }
  const layers = readDescriptors(json['layers'], 'layers');
  if (!layers.ok) {
    return layers;
  }
  const subject = readOptionalDescriptor(json['subject']);
  if (!subject.ok) {
    return subject;
  }
  const { artifactType } = json;
  return {
    ok: true,
    value: {
      kind: 'image',
      mediaType,
      ...(config.value === undefined ? {} : { config: config.value }),
      layers: layers.value,
      ...(subject.value === undefined ? {} : { subject: subject.value }),
      ...(typeof artifactType === 'string' && artifactType !== '' ? { artifactType } : {}),
    },
  };
}

/** Go writes an empty list as null, so null is an empty list and an absent object. */
function isPresent(json: unknown): boolean {
  return json !== undefined && json !== null;
}

function readOptionalDescriptor(json: unknown): Result<Descriptor | undefined> {
  return isPresent(json) ? parseDescriptor(json) : { ok: true, value: undefined };
}

function readDescriptors(json: unknown, what: string): Result<Descriptor[]> {
  if (!isPresent(json)) {
    return { ok: true, value: [] };
  }
  if (!Array.isArray(json)) {
    return { ok: false, reason: `${what} is no list` };
  }
  if (json.length > MAX_MANIFEST_CHILDREN) {
    return { ok: false, reason: `more than ${MAX_MANIFEST_CHILDREN} ${what}` };
  }
  const descriptors: Descriptor[] = [];
  for (const entry of json) {
    const descriptor = parseDescriptor(entry);
    if (!descriptor.ok) {
      return descriptor;
    }
    descriptors.push(descriptor.value);
  }
  return { ok: true, value: descriptors };
}

const ARCHITECTURE_ALIASES: ReadonlyMap<string, string> = new Map([
  ['x86_64', 'amd64'],
  ['x86-64', 'amd64'],
  ['aarch64', 'arm64'],
  ['i386', '386'],
]);

const DEFAULT_VARIANTS: ReadonlyMap<string, string> = new Map([
  ['amd64', 'v1'],
  ['arm64', 'v8'],
  ['arm', 'v7'],
]);

/**
 * Whether an image for `platform` runs on `wanted`, by containerd's rules: the same system and
 * architecture, and a variant that is not newer. No variant means amd64 v1, arm64 v8, arm v7.
 */
export function platformMatches(
  platform: Platform,
  wanted: { readonly os: string; readonly architecture: string; readonly variant?: string },
): boolean {
  const architecture = normalizeArchitecture(platform.architecture);
  if (
    platform.os.toLowerCase() !== wanted.os.toLowerCase() ||
    architecture !== normalizeArchitecture(wanted.architecture)
  ) {
    return false;
  }
  const fallback = DEFAULT_VARIANTS.get(architecture) ?? '';
  const offered = platform.variant ?? fallback;
  const limit = wanted.variant ?? fallback;
  const offeredLevel = variantLevel(offered);
  const limitLevel = variantLevel(limit);
  return offeredLevel === undefined || limitLevel === undefined
    ? offered === limit
    : offeredLevel <= limitLevel;
}

/** The entry of an index that a node of this platform is given: the first that matches. */
export function manifestFor(
  index: Pick<IndexManifest, 'manifests'>,
  platform: { readonly os: string; readonly architecture: string; readonly variant?: string },
): Descriptor | undefined {
  return index.manifests.find(
    (entry) => entry.platform !== undefined && platformMatches(entry.platform, platform),
  );
}

/** Go's name of a processor architecture that Node.js calls `nodeArch` (process.arch). */
export function goArchitecture(nodeArch: string): string {
  switch (nodeArch) {
    case 'x64':
      return 'amd64';
    case 'ia32':
      return '386';
    case 'ppc64':
      return 'ppc64le';
    case 'mipsel':
      return 'mipsle';
    default:
      return nodeArch;
  }
}

function normalizeArchitecture(architecture: string): string {
  const lower = architecture.toLowerCase();
  return ARCHITECTURE_ALIASES.get(lower) ?? lower;
}

/** "v8" is 8000, "v8.2" is 8002. */
function variantLevel(variant: string): number | undefined {
  const match = /^v?([0-9]{1,3})(?:\.([0-9]{1,3}))?$/.exec(variant);
  return match === null ? undefined : Number(match[1]) * 1000 + Number(match[2] ?? 0);
}
