import type { Digest } from '../../oci/digest.ts';
import type { PassedImage } from '../../rpc/agent-client.ts';
import type { Clock } from '../../telemetry/clock.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { ContainerdEditor } from '../containerd/containerd-editor.ts';
import { childLabels, missingLabels, type ChildLabel } from './child-labels.ts';
import { decodeMark, encodeMark, KEPT_MARK } from './kept-mark.ts';
import type { KeeperMetrics } from './keeper-metrics.ts';
import type { ManifestFinder } from './manifest-finder.ts';
import type { StoredManifests } from './stored-manifests.ts';

/** A blob that goes to this node, and the images that it is a part of. */
export interface KeepNotice {
  readonly digest: Digest;
  /** The likeliest first; none: they are looked for. */
  readonly images: readonly PassedImage[];
}

export interface ImageKeeperOptions {
  /** After which waits a manifest that is not there yet is looked for again, in milliseconds. */
  readonly retryDelaysMs: readonly number[];
  /** How many manifests may be waited for at a time. */
  readonly maxWaiting: number;
}

const defaultOptions: ImageKeeperOptions = {
  retryDelaysMs: [50, 200, 1000, 3000],
  maxWaiting: 64,
};

/**
 * Keeps the layers of images where containerd is told to discard them once they are unpacked. It
 * does so by leaving the references to layers off the manifest; put back while the image is being
 * pulled, they keep the layers for exactly as long as the image record, as if it had not been told.
 *
 * What was added is marked on the same blob, so that it can be taken away again.
 */
export class ImageKeeper {
  readonly #options: ImageKeeperOptions;
  readonly #editor: Pick<ContainerdEditor, 'labels' | 'updateLabels'>;
  readonly #manifests: Pick<StoredManifests, 'read'>;
  readonly #finder: Pick<ManifestFinder, 'find'>;
  readonly #metrics: KeeperMetrics;
  readonly #log: Pick<Logger, 'info' | 'warn' | 'debug'>;
  readonly #clock: Clock;
  readonly #stopped = new AbortController();
  readonly #attempts = new Map<Digest, Promise<Attempt>>();
  readonly #waiting = new Map<Digest, Promise<void>>();

  constructor(
    options: Partial<ImageKeeperOptions>,
    dependencies: {
      editor: Pick<ContainerdEditor, 'labels' | 'updateLabels'>;
      manifests: Pick<StoredManifests, 'read'>;
      finder: Pick<ManifestFinder, 'find'>;
      metrics: KeeperMetrics;
      log: Pick<Logger, 'info' | 'warn' | 'debug'>;
      clock: Clock;
    },
  ) {
    this.#options = { ...defaultOptions, ...options };
    this.#editor = dependencies.editor;
    this.#manifests = dependencies.manifests;
    this.#finder = dependencies.finder;
    this.#metrics = dependencies.metrics;
    this.#log = dependencies.log;
    this.#clock = dependencies.clock;
  }

  /**
   * Restores what is missing. A manifest that is not there yet is looked for again for a few
   * seconds after this has returned.
   *
   * @returns how many references were missing and are there now
   * @throws StoreUnavailableError when containerd cannot be asked, and the reason of the stop
   */
  async keep({ digest, images }: KeepNotice): Promise<number> {
    const { signal } = this.#stopped;
    signal.throwIfAborted();
    try {
      const wanted = images.length > 0 ? images : await this.#find(digest);
      let restored = 0;
      for (const [position, image] of wanted.entries()) {
        const attempt = await this.#once(image);
        restored += attempt.restored;
        // The others may have been removed from this node; only the likeliest is on its way.
        if (!attempt.isThere && position === 0) this.#waitFor(image);
      }
      return restored;
    } catch (error) {
      this.#fail(digest, error);
      throw error;
    }
  }

  /** Ends all work. When it resolves, no call is under way and no timer left. */
  async stop(): Promise<void> {
    this.#stopped.abort(new Error('The agent stops'));
    await Promise.allSettled([...this.#attempts.values(), ...this.#waiting.values()]);
  }

  async #find(digest: Digest): Promise<PassedImage[]> {
    const manifests = await this.#finder.find(digest, { signal: this.#stopped.signal });
    if (manifests.length === 0) this.#metrics.images.inc({ result: 'unknown' });
    return manifests.map((manifest) => ({ manifest, indexes: [] }));
  }

  #once(image: PassedImage): Promise<Attempt> {
    const running = this.#attempts.get(image.manifest);
    if (running !== undefined) return running;
    const attempt = this.#attempt(image).finally(() => this.#attempts.delete(image.manifest));
    this.#attempts.set(image.manifest, attempt);
    return attempt;
  }

  async #attempt({ manifest, indexes }: PassedImage): Promise<Attempt> {
    const own = await this.#restore(manifest, () => true);
    if (own === undefined) {
      this.#metrics.images.inc({ result: 'absent' });
      return { isThere: false, restored: 0 };
    }
    let restored = own;
    for (const index of indexes) {
      restored += (await this.#restore(index, (child) => child.digest === manifest)) ?? 0;
    }
    this.#metrics.images.inc({ result: restored > 0 ? 'restored' : 'complete' });
    this.#metrics.labels.inc(restored);
    if (restored > 0)
      this.#log.info({ manifest, labels: restored }, 'keeps the layers of an image');
    return { isThere: true, restored };
  }

  /** @returns how many labels were missing; undefined when there is no such manifest */
  async #restore(
    digest: Digest,
    isWanted: (child: ChildLabel) => boolean,
  ): Promise<number | undefined> {
    const { signal } = this.#stopped;
    // Both at a time, since a pull waits for it.
    const [labels, manifest] = await Promise.all([
      this.#editor.labels(digest, { signal }),
      this.#manifests.read(digest, { signal }),
    ]);
    if (labels === undefined || manifest === undefined) return undefined;
    const missing = missingLabels(childLabels(manifest).filter(isWanted), labels);
    if (missing.length === 0) return 0;
    const keys = missing.map(({ key }) => key);
    const mark = encodeMark([...decodeMark(labels[KEPT_MARK]), ...keys]);
    if (mark === undefined) {
      throw new Error(
        `Cannot keep ${digest}: its ${missing.length} children do not fit in a label`,
      );
    }
    const references = Object.fromEntries(missing.map(({ key, digest: child }) => [key, child]));
    const set = { ...references, [KEPT_MARK]: mark };
    return (await this.#editor.updateLabels(digest, { set, signal })) ? missing.length : undefined;
  }

  #waitFor(image: PassedImage): void {
    const { manifest } = image;
    if (this.#waiting.has(manifest) || this.#waiting.size >= this.#options.maxWaiting) return;
    const waiting = this.#retry(image)
      .catch((error: unknown) => this.#fail(manifest, error))
      .finally(() => this.#waiting.delete(manifest));
    this.#waiting.set(manifest, waiting);
  }

  async #retry(image: PassedImage): Promise<void> {
    for (const delayMs of this.#options.retryDelaysMs) {
      await this.#clock.sleep(delayMs, { signal: this.#stopped.signal });
      if ((await this.#once(image)).isThere) return;
    }
  }

  #fail(digest: Digest, error: unknown): void {
    if (this.#stopped.signal.aborted) return;
    this.#metrics.images.inc({ result: 'failed' });
    this.#log.warn({ digest, err: error }, 'cannot keep the layers of an image');
  }
}

interface Attempt {
  /** The manifest is in the store. */
  readonly isThere: boolean;
  readonly restored: number;
}
