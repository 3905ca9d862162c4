import type { DirectoryStore } from '../directory/directory-store.ts';
import type { BackfillJob } from './backfill-plan.ts';
import type { Restore } from './repair-containerd.ts';
import { RestoreError } from './restore-error.ts';

/** Puts content into a directory: written beside what is there, then renamed over it. */
export class DirectoryRestore implements Restore {
  readonly #store: Pick<DirectoryStore, 'createWriter'>;

  constructor(dependencies: { readonly store: Pick<DirectoryStore, 'createWriter'> }) {
    this.#store = dependencies.store;
  }

  async restore(
    { digest, sizeBytes }: BackfillJob,
    chunks: (offsetBytes: number) => AsyncIterable<Uint8Array>,
  ): Promise<'written'> {
    const writer = await this.#store.createWriter(digest, { sizeBytes, replaces: true });
    if (writer === undefined) {
      throw new RestoreError('refused', `Cannot keep ${digest}: the store has no room for it`);
    }
    try {
      for await (const chunk of chunks(0)) await writer.write(chunk);
      await writer.commit();
      return 'written';
    } finally {
      await writer.abort();
    }
  }

  async tidy(): Promise<void> {
    // The store itself removes what is left half written when it is opened.
  }
}
