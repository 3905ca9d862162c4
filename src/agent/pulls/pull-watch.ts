import { fromBinary } from '@bufbuild/protobuf';

import { ImageCreateSchema } from '../../rpc/gen/containerd/events/image_pb.ts';
import type { Clock } from '../../telemetry/clock.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { ContainerdClient } from '../containerd/containerd-client.ts';
import type { PullCount } from './pull-count.ts';

/** Both carry a name and labels in the same fields. */
const topics = ['^/images/create$', '^/images/update$'];
const RETRY_MS = 1000;

/** Tells of every image that containerd names, as long as containerd is there to say so. */
export class PullWatch {
  readonly #client: Pick<ContainerdClient, 'events'>;
  readonly #count: Pick<PullCount, 'noteImage'>;
  readonly #clock: Clock;
  readonly #log: Pick<Logger, 'debug'>;
  readonly #stopped = new AbortController();
  #running: Promise<void> | undefined;

  constructor(dependencies: {
    client: Pick<ContainerdClient, 'events'>;
    count: Pick<PullCount, 'noteImage'>;
    clock: Clock;
    log: Pick<Logger, 'debug'>;
  }) {
    this.#client = dependencies.client;
    this.#count = dependencies.count;
    this.#clock = dependencies.clock;
    this.#log = dependencies.log;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      try {
        for await (const { event } of this.#client.events(topics, { signal })) {
          if (event === undefined) continue;
          const { name, labels } = fromBinary(ImageCreateSchema, event.value);
          this.#count.noteImage({ name, labels });
        }
      } catch (error) {
        this.#log.debug({ err: error }, 'cannot hear of the images of containerd');
      }
      await this.#clock.sleep(RETRY_MS, { signal }).catch(() => undefined);
    }
  }
}
