import type { Logger } from '../telemetry/logger.ts';

/** What a service may do while it starts and runs. */
export interface ServiceContext {
  /** Aborts when the group gives up before the service has started. */
  readonly signal: AbortSignal;
  /** Says that the service cannot go on; the whole group stops. The first failure counts. */
  readonly fail: (error: Error) => void;
}

/** How a service is to end. */
export interface StopContext {
  /** Until it aborts, running work may finish; then everything is to be cut off. */
  readonly signal: AbortSignal;
}

/** One part of a process that must be started before others and stopped after them. */
export interface Service {
  readonly name: string;
  start(context: ServiceContext): Promise<void>;
  /** Called once, and only after `start` has succeeded. */
  stop(context: StopContext): Promise<void>;
}

export interface ServiceGroupOptions {
  /** How long all services together may take to end their work, in milliseconds. */
  readonly drainMs: number;
  /** How long each may take after it was told to cut everything off; 1 s where left out. */
  readonly cutMs?: number;
}

export interface ServiceGroupDependencies {
  readonly log: Pick<Logger, 'info' | 'warn'>;
}

/**
 * Services that live and end together: started in order, stopped in reverse. Whatever fails
 * first, at start or later, stops all of them.
 */
export class ServiceGroup {
  readonly #options: ServiceGroupOptions;
  readonly #log: ServiceGroupDependencies['log'];

  constructor(options: ServiceGroupOptions, dependencies: ServiceGroupDependencies) {
    this.#options = options;
    this.#log = dependencies.log;
  }

  /**
   * Runs services until `signal` aborts, one of them fails, or `ready` (called once all have
   * started) throws. Returns when all have stopped or their deadlines have passed.
   *
   * @throws the first failure, after everything has been stopped
   */
  async run(
    services: readonly Service[],
    options: { readonly signal: AbortSignal; readonly ready?: () => void | Promise<void> },
  ): Promise<void> {
    const failure = new AbortController();
    const fail = (error: Error): void => {
      if (!failure.signal.aborted) {
        failure.abort(error);
      }
    };
    const ending = AbortSignal.any([options.signal, failure.signal]);
    const started: Service[] = [];
    try {
      for (const service of services) {
        if (ending.aborted) {
          break;
        }
        await service.start({ signal: ending, fail });
        started.push(service);
      }
      if (!ending.aborted) {
        await options.ready?.();
        await aborted(ending);
      }
    } catch (error) {
      // A start that was broken off because the group is ending is no failure of its own.
      if (!ending.aborted) {
        fail(error instanceof Error ? error : new Error(String(error)));
      }
    }
    await this.#stop(started.reverse());
    if (failure.signal.aborted) {
      throw failure.signal.reason;
    }
  }

  async #stop(services: readonly Service[]): Promise<void> {
    if (services.length === 0) {
      return;
    }
    const begin = performance.now();
    const drain = new AbortController();
    const timer = setTimeout(() => drain.abort(), this.#options.drainMs);
    for (const service of services) {
      await this.#stopOne(service, drain.signal);
    }
    clearTimeout(timer);
    this.#log.info({ tookMs: Math.round(performance.now() - begin) }, 'Stopped');
  }

  /** Never throws: the others have to be stopped as well. */
  async #stopOne(service: Service, drain: AbortSignal): Promise<void> {
    const log = (error: unknown): void => {
      this.#log.warn({ service: service.name, err: error }, 'Cannot stop a service cleanly');
    };
    const stopped = service.stop({ signal: drain }).catch(log);
    const overdue = new AbortController();
    const cut = aborted(drain).then(() => delay(this.#options.cutMs ?? 1000, overdue.signal));
    const result = await Promise.race([stopped.then(() => 'stopped'), cut.then(() => 'overdue')]);
    overdue.abort();
    if (result === 'overdue') {
      this.#log.warn({ service: service.name }, 'Service did not stop in time, leaving it behind');
    }
  }
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) {
    await new Promise<void>((resolve) => {
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
  }
}

async function delay(timeMs: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, timeMs);
    const end = (): void => {
      clearTimeout(timer);
      resolve();
    };
    if (signal.aborted) {
      end();
    } else {
      signal.addEventListener('abort', end, { once: true });
    }
  });
}
