import { readFile, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { parseDescriptor } from '../../oci/descriptor.ts';
import { MEDIA_TYPE } from '../../oci/media-type.ts';
import { formatReference, parseReference } from '../../oci/reference.ts';
import type { Logger } from '../../telemetry/logger.ts';
import { isMissing } from '../blob-files.ts';
import type { NamedDescriptor } from '../store.ts';

export interface LayoutIndexOptions {
  /** The directory of the OCI image layout. */
  readonly path: string;
  /** How many names are kept; the one that was written longest ago goes first. */
  readonly maxNames: number;
}

export interface LayoutIndexDependencies {
  readonly log: Pick<Logger, 'warn'>;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

const nameAnnotation = 'org.opencontainers.image.ref.name';
const observedAnnotation = 'dev.salvor.observed-at';
const recordedAnnotation = 'dev.salvor.recorded-at';
const maxIndexBytes = 32 * 1024 * 1024;
/** The same observation is not written again for this long. */
const quietMs = 5000;

/**
 * The names of an OCI image layout, kept in its `index.json`: entries whose annotation
 * `org.opencontainers.image.ref.name` is a full "registry/repository:tag". What others wrote there
 * and is no such entry stays as it is.
 */
export class LayoutIndex {
  readonly #path: string;
  readonly #maxNames: number;
  readonly #log: LayoutIndexDependencies['log'];
  readonly #now: LayoutIndexDependencies['now'];
  /** In the order in which they were written. */
  readonly #names = new Map<string, NamedDescriptor>();
  /** Other people's entries and fields. */
  #foreignEntries: unknown[] = [];
  #foreignFields: Record<string, unknown> = {};
  #writing: Promise<void> = Promise.resolve();
  #nextWrite: Promise<void> | undefined;

  private constructor(options: LayoutIndexOptions, dependencies: LayoutIndexDependencies) {
    this.#path = join(options.path, 'index.json');
    this.#maxNames = options.maxNames;
    this.#log = dependencies.log;
    this.#now = dependencies.now;
  }

  /** Reads `index.json`. One that cannot be understood is renamed, and the index begins empty. */
  static async open(
    options: LayoutIndexOptions,
    dependencies: LayoutIndexDependencies,
  ): Promise<LayoutIndex> {
    const index = new LayoutIndex(options, dependencies);
    try {
      await index.#load();
    } catch (error) {
      await index.#setAside(error);
    }
    return index;
  }

  get(name: string): NamedDescriptor | undefined {
    return this.#names.get(name);
  }

  /** Every name at this moment. */
  list(): NamedDescriptor[] {
    return [...this.#names.values()];
  }

  /**
   * Writes a name down. An observation older than the one that is known changes nothing, and
   * one that says the same again soon only keeps the name from being the oldest.
   *
   * @throws when the file cannot be written
   */
  async set(entry: NamedDescriptor & { readonly observedAtMs: number }): Promise<void> {
    const last = this.#names.get(entry.name);
    const known = last?.observedAtMs;
    // One that claims to come from the future must not win for ever.
    if (known !== undefined && known > entry.observedAtMs && known <= this.#now()) return;
    const sinceMs = entry.observedAtMs - (known ?? 0);
    const isNews = last?.digest !== entry.digest || sinceMs < 0 || sinceMs >= quietMs;
    this.#names.delete(entry.name);
    this.#names.set(entry.name, isNews ? entry : last);
    for (const oldest of this.#names.keys()) {
      if (this.#names.size <= this.#maxNames) break;
      this.#names.delete(oldest);
    }
    if (!isNews) return;
    await this.#save();
  }

  /**
   * Removes names.
   *
   * @throws when the file cannot be written
   */
  async remove(names: Iterable<string>): Promise<void> {
    let removed = false;
    for (const name of names) removed = this.#names.delete(name) || removed;
    if (removed) await this.#save();
  }

  /** Resolves when everything is written that was to be written at the time of the call. */
  async settled(): Promise<void> {
    await (this.#nextWrite ?? this.#writing).catch(() => undefined);
  }

  async #load(): Promise<void> {
    let modifiedAtMs: number;
    try {
      const { size, mtimeMs } = await stat(this.#path);
      if (size > maxIndexBytes) throw new Error(`${size} bytes are more than ${maxIndexBytes}`);
      modifiedAtMs = Math.floor(mtimeMs);
    } catch (error) {
      if (isMissing(error)) return;
      throw error;
    }
    const json: unknown = JSON.parse(await readFile(this.#path, 'utf8'));
    if (!isRecord(json) || !Array.isArray(json['manifests'])) {
      throw new Error('it has no list of manifests');
    }
    const { manifests, ...fields } = json;
    this.#foreignFields = fields;
    for (const entry of manifests as unknown[]) {
      const named = readEntry(entry, modifiedAtMs);
      if (named === undefined) this.#foreignEntries.push(entry);
      else this.#names.set(named.name, named);
    }
  }

  async #setAside(error: unknown): Promise<void> {
    this.#names.clear();
    this.#foreignEntries = [];
    this.#foreignFields = {};
    const brokenPath = `${this.#path}.broken-${this.#now()}`;
    this.#log.warn(
      { err: error, movedTo: brokenPath },
      'Cannot read index.json: it is set aside, and names start anew',
    );
    await rename(this.#path, brokenPath);
  }

  /** One write at a time; what changes during it goes into the next, all together. */
  #save(): Promise<void> {
    this.#nextWrite ??= this.#writing
      .catch(() => undefined)
      .then(() => {
        this.#nextWrite = undefined;
        this.#writing = this.#write();
        return this.#writing;
      });
    return this.#nextWrite;
  }

  async #write(): Promise<void> {
    const index = {
      schemaVersion: 2,
      mediaType: MEDIA_TYPE.ociIndex,
      ...this.#foreignFields,
      manifests: [...this.#foreignEntries, ...Array.from(this.#names.values(), writeEntry)],
    };
    const temporaryPath = `${this.#path}.new`;
    await writeFile(temporaryPath, `${JSON.stringify(index)}\n`);
    await rename(temporaryPath, this.#path);
  }
}

/** Whether a text is a "registry/repository:tag" in normal form. */
export function isTagName(text: string): boolean {
  const reference = parseReference(text);
  if (!reference.ok) return false;
  const { tag, digest } = reference.value;
  return tag !== undefined && digest === undefined && formatReference(reference.value) === text;
}

function isRecord(json: unknown): json is Record<string, unknown> {
  return typeof json === 'object' && json !== null && !Array.isArray(json);
}

function readEntry(json: unknown, fileTimeMs: number): NamedDescriptor | undefined {
  const descriptor = parseDescriptor(json);
  if (!descriptor.ok) return undefined;
  const { digest, mediaType, sizeBytes, annotations = {} } = descriptor.value;
  const name = annotations[nameAnnotation];
  if (name === undefined || !isTagName(name)) return undefined;
  const observedAtMs = readTime(annotations[observedAnnotation]);
  const recordedAtMs = readTime(annotations[recordedAnnotation]) ?? fileTimeMs;
  const entry = { name, digest, mediaType, sizeBytes, recordedAtMs };
  return observedAtMs === undefined ? entry : { ...entry, observedAtMs };
}

function writeEntry(entry: NamedDescriptor): unknown {
  const { name, digest, mediaType, sizeBytes, recordedAtMs, observedAtMs } = entry;
  return {
    mediaType,
    digest,
    size: sizeBytes,
    annotations: {
      [nameAnnotation]: name,
      ...(observedAtMs === undefined
        ? {}
        : { [observedAnnotation]: new Date(observedAtMs).toISOString() }),
      [recordedAnnotation]: new Date(recordedAtMs).toISOString(),
    },
  };
}

function readTime(text: string | undefined): number | undefined {
  const timeMs = text === undefined ? Number.NaN : Date.parse(text);
  return Number.isNaN(timeMs) ? undefined : timeMs;
}
