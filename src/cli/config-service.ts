import type { Registry } from 'prom-client';
import type { Config } from '../config/schema.ts';
import { systemClock } from '../telemetry/clock.ts';
import type { AdjustableLogger } from '../telemetry/logger.ts';
import type { CommandContext } from './command.ts';
import { ConfigReload, createReloadMetrics } from './config-reload.ts';
import { ConfigWatch } from './config-watch.ts';
import type { Service } from './service-group.ts';

/** Between two looks at the file; a change counts after two, milliseconds. */
const LOOK_INTERVAL_MS = 2000;
const NO_FILE = 'nothing to reload, there is no configuration file';

/**
 * Watches the configuration of a process, as a service that begins when all others run.
 *
 * @param reload undefined: there is nothing to watch
 */
export function configService(
  config: Config,
  reload: CommandContext['reload'],
  dependencies: {
    readonly apply: (config: Config) => void;
    readonly metrics: Registry;
    readonly log: AdjustableLogger;
  },
): Service[] {
  if (reload === undefined) return [];
  const { source, hangups } = reload;
  const { log } = dependencies;
  const metrics = createReloadMetrics(dependencies.metrics);
  if (source.paths.length === 0) {
    const start = async (): Promise<void> => hangups.listen(() => log.info({}, NO_FILE));
    return [{ name: 'configuration', start, stop: async () => undefined }];
  }
  const path = source.paths.join(', ');
  const taker = new ConfigReload({ config, source, path }, { ...dependencies, metrics });
  const watch = new ConfigWatch(
    { intervalMs: LOOK_INTERVAL_MS, content: source.contents },
    {
      read: () => source.read(),
      take: (found) => taker.take(found),
      clock: systemClock,
    },
  );
  return [
    {
      name: 'configuration',
      start: async () => {
        watch.start();
        hangups.listen(() => {
          if (source.contents.file === undefined) log.info({}, NO_FILE);
          watch.ask();
        });
      },
      stop: () => watch.stop(),
    },
  ];
}
