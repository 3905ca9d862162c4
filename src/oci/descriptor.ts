import { parseDigest } from './digest.ts';
import type { Digest } from './digest.ts';
import type { Result } from './result.ts';

/** What a manifest in an index runs on, in Go's words: "linux", "amd64", "v3". */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
  readonly osVersion?: string;
}

/** What one piece of content points at, by the OCI image specification. */
export interface Descriptor {
  /** Not empty. */
  readonly mediaType: string;
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly platform?: Platform;
  readonly urls?: readonly string[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly artifactType?: string;
}

/**
 * Reads a descriptor out of parsed JSON. What makes it a descriptor (media type, digest, size) must
 * be right; of the rest, what cannot be read is left out.
 */
export function parseDescriptor(json: unknown): Result<Descriptor> {
  if (!isJsonObject(json)) {
    return { ok: false, reason: 'a descriptor that is no object' };
  }
  const { mediaType, size } = json;
  if (typeof mediaType !== 'string' || mediaType === '') {
    return { ok: false, reason: 'a descriptor without a media type' };
  }
  const digest = parseDigest(typeof json['digest'] === 'string' ? json['digest'] : '');
  if (!digest.ok) {
    return { ok: false, reason: `a descriptor with a bad digest, ${digest.reason}` };
  }
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    return { ok: false, reason: 'a descriptor with a bad size' };
  }
  const platform = readPlatform(json['platform']);
  const annotations = readAnnotations(json['annotations']);
  const { urls, artifactType } = json;
  return {
    ok: true,
    value: {
      mediaType,
      digest: digest.value,
      sizeBytes: size,
      ...(platform === undefined ? {} : { platform }),
      ...(Array.isArray(urls) ? { urls: urls.filter((url) => typeof url === 'string') } : {}),
      ...(annotations === undefined ? {} : { annotations }),
      ...(typeof artifactType === 'string' ? { artifactType } : {}),
    },
  };
}

/** Whether parsed JSON is an object with names, not null and not a list. */
export function isJsonObject(json: unknown): json is Readonly<Record<string, unknown>> {
  return typeof json === 'object' && json !== null && !Array.isArray(json);
}

/** Reads the platform of a descriptor, or of an image config, which says it with the same words. */
export function readPlatform(json: unknown): Platform | undefined {
  if (!isJsonObject(json)) {
    return undefined;
  }
  const { os, architecture, variant } = json;
  const osVersion = json['os.version'];
  if (typeof os !== 'string' || typeof architecture !== 'string') {
    return undefined;
  }
  return {
    os,
    architecture,
    ...(typeof variant === 'string' && variant !== '' ? { variant } : {}),
    ...(typeof osVersion === 'string' && osVersion !== '' ? { osVersion } : {}),
  };
}

function readAnnotations(json: unknown): Record<string, string> | undefined {
  if (!isJsonObject(json)) {
    return undefined;
  }
  // fromEntries defines properties, so that a key "__proto__" is a key like any other.
  return Object.fromEntries(
    Object.entries(json).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  );
}
