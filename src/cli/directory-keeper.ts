import type { DirectoryStore } from '../agent/directory/directory-store.ts';
import type { BlobKeeper } from '../registry/blob-pull.ts';
import type { BlobTap } from '../registry/relay.ts';
import type { ManifestKeeper } from '../registry/tag-recorder.ts';

/** Joins the registry's wish to keep what passes to a store that takes it. */
export function keeperOf(store: DirectoryStore): BlobKeeper & ManifestKeeper {
  return {
    tap: async (digest, sizeBytes) => {
      const writer = await store.createWriter(digest, { sizeBytes });
      return writer === undefined ? undefined : tapOf(writer);
    },
    manifest: async ({ digest, bytes }) => {
      const writer = await store.createWriter(digest, { sizeBytes: bytes.length });
      if (writer === undefined) return;
      await writer.write(bytes);
      await writer.commit();
    },
    tag: async (name, tag) => store.tag(name, tag),
  };
}

type Writer = NonNullable<Awaited<ReturnType<DirectoryStore['createWriter']>>>;

// A pull must not fail because its copy cannot be kept: a full disk ends the copy alone.
function tapOf(writer: Writer): BlobTap {
  let open = true;
  const attempt = async (step: () => Promise<void>): Promise<void> => {
    if (!open) return;
    try {
      await step();
    } catch {
      open = false;
      await writer.abort();
    }
  };
  return {
    write: (chunk) => attempt(() => writer.write(chunk)),
    commit: () =>
      attempt(async () => {
        await writer.commit();
        open = false;
      }),
    abort: () =>
      attempt(async () => {
        open = false;
        await writer.abort();
      }),
  };
}
