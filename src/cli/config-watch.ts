import { createHash } from 'node:crypto';
import type { Clock } from '../telemetry/clock.ts';

export interface ConfigWatchOptions<Content> {
  /** Between two looks at the files, milliseconds. */
  readonly intervalMs: number;
  /** What they held when they were last taken; something that JSON can say. */
  readonly content: Content;
}

/**
 * Looks at files again and again, and has them taken when they hold something else. Content counts,
 * not dates or names: a file that was renamed into place is noticed like the symbolic link of a
 * mounted ConfigMap, and one that was merely touched is not. It must be the same at two looks, so
 * that nobody takes what is still being written.
 */
export class ConfigWatch<Content> {
  readonly #options: ConfigWatchOptions<Content>;
  readonly #read: () => Promise<Content>;
  readonly #take: (content: Content) => Promise<void>;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  /** What was taken last, good or bad: a bad file is complained about once. */
  #taken: string;
  /** What the last look found, where that was something new. */
  #seen: string | undefined;
  #isAsked = false;
  #loop: Promise<void> = Promise.resolve();
  /** Everything that reads the file, one after the other. */
  #work: Promise<void> = Promise.resolve();

  /** Neither `read` nor `take` may throw. */
  constructor(
    options: ConfigWatchOptions<Content>,
    dependencies: {
      read: () => Promise<Content>;
      take: (content: Content) => Promise<void>;
      clock: Clock;
    },
  ) {
    this.#options = options;
    this.#taken = fingerprint(options.content);
    this.#read = dependencies.read;
    this.#take = dependencies.take;
    this.#clock = dependencies.clock;
  }

  start(): void {
    this.#loop = this.#lookAgain();
  }

  /** Has the file taken as it is now, changed or not: somebody says that it is complete. */
  ask(): void {
    if (this.#isAsked) return;
    this.#isAsked = true;
    void this.#enqueue(async () => {
      this.#isAsked = false;
      await this.#takeNow(await this.#read());
    });
  }

  /** Ends the looks and waits for one that is under way. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
    await this.#work;
  }

  async #lookAgain(): Promise<void> {
    const { signal } = this.#stop;
    for (;;) {
      try {
        await this.#clock.sleep(this.#options.intervalMs, { signal });
      } catch {
        return;
      }
      await this.#enqueue(() => this.#look());
    }
  }

  async #enqueue(work: () => Promise<void>): Promise<void> {
    this.#work = this.#work.then(async () => {
      if (!this.#stop.signal.aborted) await work();
    });
    await this.#work;
  }

  async #look(): Promise<void> {
    const content = await this.#read();
    const found = fingerprint(content);
    if (found === this.#taken) this.#seen = undefined;
    else if (found === this.#seen) await this.#takeNow(content);
    else this.#seen = found;
  }

  async #takeNow(content: Content): Promise<void> {
    this.#seen = undefined;
    this.#taken = fingerprint(content);
    await this.#take(content);
  }
}

/** Stands for the content in comparisons; the content itself is not kept. */
function fingerprint(content: unknown): string {
  return createHash('sha256').update(JSON.stringify(content)).digest('base64');
}
