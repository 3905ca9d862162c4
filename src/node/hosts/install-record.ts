import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { replaceFile, type OnStep } from './replace-file.ts';
import type { Original } from './found-file.ts';
import { isMissing } from './registry-directory.ts';

/** A hosts.toml that was, or is about to be, written. */
export interface RecordedFile {
  readonly path: string;
  readonly original: Original;
  /** Hashes of what may stand there by our hand: until a write is done there are two. */
  readonly written: readonly string[];
  /** The entry of ours in it. */
  readonly entry: string;
}

/** All that must be known to undo what was done. It is on disk before anything is done. */
export interface InstallRecord {
  readonly version: 1;
  readonly files: readonly RecordedFile[];
  /** Directories that were made, outermost first. */
  readonly directories: readonly string[];
}

const emptyRecord: InstallRecord = { version: 1, files: [], directories: [] };

/** Keeps the record and the bytes of originals below a directory that only its owner may read. */
export class InstallState {
  readonly directory: string;
  readonly #onStep: OnStep | undefined;

  constructor(options: { readonly directory: string }, dependencies: { onStep?: OnStep } = {}) {
    this.directory = options.directory;
    this.#onStep = dependencies.onStep;
  }

  /** @throws when there is a record that cannot be understood: nothing must be done then */
  async load(): Promise<InstallRecord> {
    const path = join(this.directory, 'record.json');
    let text: string;
    try {
      text = await readFile(path, 'utf8');
    } catch (error) {
      if (isMissing(error)) return emptyRecord;
      throw new Error(`Cannot read what was installed: ${String(error)}`, { cause: error });
    }
    try {
      const record = JSON.parse(text) as InstallRecord;
      if ((record.version as number) === 1) return record;
    } catch {
      // Said below, as for a version of later days.
    }
    throw new Error(`Cannot understand ${path}: it was written by another version, or is damaged`);
  }

  async save(record: InstallRecord): Promise<void> {
    const path = join(this.directory, 'record.json');
    await mkdir(this.directory, { recursive: true, mode: 0o700 });
    await this.#onStep?.(`before ${path}`);
    await replaceFile(path, `${JSON.stringify(record, undefined, 2)}\n`, {
      mode: 0o600,
      onStep: this.#onStep,
    });
  }

  /** Keeps the bytes of an original, once. */
  async keep(hash: string, bytes: Buffer): Promise<void> {
    await mkdir(join(this.directory, 'originals'), { recursive: true, mode: 0o700 });
    const kept = await this.original(hash).catch(() => undefined);
    if (kept !== undefined) return;
    await replaceFile(this.#pathOf(hash), bytes, { mode: 0o600, onStep: this.#onStep });
  }

  /** @throws when they are not there */
  async original(hash: string): Promise<Buffer> {
    return readFile(this.#pathOf(hash));
  }

  #pathOf(hash: string): string {
    return join(this.directory, 'originals', hash);
  }
}
