import { Counter, Gauge, type Registry } from 'prom-client';
import { ConfigError, describeMistake } from '../config/config-error.ts';
import { planReload } from '../config/reload.ts';
import type { Config } from '../config/schema.ts';
import { moreVerbose, type AdjustableLogger } from '../telemetry/logger.ts';
import type { ConfigSource } from './config-source.ts';

export interface ConfigReloadOptions<Content> {
  /** What the process began with. */
  readonly config: Config;
  readonly source: Pick<ConfigSource, 'command' | 'settings'> & {
    load(content: Content): Promise<Config>;
  };
  /** Where it comes from, for the log. */
  readonly path: string;
}

/**
 * Takes changed configurations over into a running process: what is reloadable of a good one, and
 * nothing of a bad one. Says what it did; of settings the names alone, since values may be secret.
 */
export class ConfigReload<Content> {
  readonly #options: ConfigReloadOptions<Content>;
  readonly #apply: (config: Config) => void;
  readonly #metrics: ReloadMetrics;
  readonly #log: AdjustableLogger;
  #running: Config;

  /**
   * @param dependencies.apply puts a configuration into effect; where it throws, nothing may have
   *   changed
   */
  constructor(
    options: ConfigReloadOptions<Content>,
    dependencies: {
      apply: (config: Config) => void;
      metrics: ReloadMetrics;
      log: AdjustableLogger;
    },
  ) {
    this.#options = options;
    this.#running = options.config;
    this.#apply = dependencies.apply;
    this.#metrics = dependencies.metrics;
    this.#log = dependencies.log;
  }

  /** Puts the file's content into effect. Never throws. */
  async take(content: Content): Promise<void> {
    try {
      await this.#take(content);
      this.#metrics.recordSuccess();
    } catch (error) {
      this.#metrics.recordFailure();
      const reason =
        error instanceof ConfigError
          ? { mistakes: error.mistakes.map(describeMistake) }
          : { err: error };
      this.#log.error(
        { file: this.#options.path, ...reason },
        'Cannot reload the configuration, the old one stays',
      );
    }
  }

  async #take(content: Content): Promise<void> {
    const { path: file, source } = this.#options;
    const loaded = await source.load(content);
    const running = this.#running;
    const { config, changed, needRestart } = planReload({ running, loaded }, source);
    if (changed.length > 0) this.#apply(config);
    this.#running = config;
    // What follows is for readers of either level.
    this.#log.setLevel(moreVerbose(running.log.level, config.log.level));
    if (needRestart.length > 0) {
      this.#log.warn({ file, settings: needRestart }, 'changed settings need a restart');
    }
    if (changed.length > 0) this.#log.info({ file, changed }, 'configuration reloaded');
    else this.#log.info({ file }, 'configuration reloaded, nothing to change');
    this.#log.setLevel(config.log.level);
  }
}

/** What is counted of reloads. */
export interface ReloadMetrics {
  recordSuccess(): void;
  recordFailure(): void;
}

/** Registers the metrics of reloads. The configuration that the process began with was a good one. */
export function createReloadMetrics(register: Registry): ReloadMetrics {
  const registers = [register];
  const reloads = new Counter({
    name: 'salvor_config_reloads_total',
    help: 'Configurations that were taken over while running, or refused.',
    labelNames: ['result'],
    registers,
  });
  const isGood = new Gauge({
    name: 'salvor_config_last_reload_successful',
    help: 'Whether the configuration file was good when it was last read: 1, else 0.',
    registers,
  });
  const goodAt = new Gauge({
    name: 'salvor_config_last_reload_success_timestamp_seconds',
    help: 'When a good configuration was last read, in seconds since the epoch.',
    registers,
  });
  for (const result of ['ok', 'failed']) reloads.inc({ result }, 0);
  isGood.set(1);
  goodAt.setToCurrentTime();
  return {
    recordSuccess: () => {
      reloads.inc({ result: 'ok' });
      isGood.set(1);
      goodAt.setToCurrentTime();
    },
    recordFailure: () => {
      reloads.inc({ result: 'failed' });
      isGood.set(0);
    },
  };
}
