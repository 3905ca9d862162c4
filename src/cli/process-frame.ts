import type { Registry } from 'prom-client';
import type { Config } from '../config/schema.ts';
import { splitAddress } from '../rpc/address.ts';
import { AdminServer, type AdminPage, type ReadyCheck } from '../telemetry/admin-server.ts';
import { createLogger, type Logger } from '../telemetry/logger.ts';
import { createMetricsRegistry } from '../telemetry/metrics.ts';
import type { CommandContext } from './command.ts';
import { configService } from './config-service.ts';
import { limitHeapForStreams } from './heap-limits.ts';
import { WatchdogSwitch } from './watchdog-switch.ts';
import { ServiceGroup, type Service } from './service-group.ts';
import { releaseStartupMemory } from './startup-memory.ts';

/** What a command puts into its frame beside services. */
export interface FrameContent {
  /** Shown on the admin port, as pages are. */
  readonly checks: Readonly<Record<string, ReadyCheck>>;
  readonly pages?: Readonly<Record<string, AdminPage>>;
  /**
   * Takes over what is reloadable of a changed configuration, all of it or nothing.
   *
   * @throws when it cannot be used; the old one stays
   */
  readonly apply?: (config: Config) => void;
}

/** What every long-running command has around its own services. */
export interface ProcessFrame {
  readonly log: Logger;
  readonly metrics: Registry;
  /**
   * Runs the services until the signal, with the admin server, the watchdog and the watch on the
   * configuration around them.
   *
   * @throws the first failure of a service
   */
  run(services: readonly Service[], content: FrameContent): Promise<void>;
}

/**
 * @param options.admin "host:port" of the admin server; empty: none
 * @param options.drainMs how long running work may take to end
 */
export function processFrame(
  config: Config,
  options: {
    readonly role: string;
    readonly admin: string;
    readonly drainMs: number;
    /** The command itself sees to who watches the process. */
    readonly isWatchedElsewhere?: boolean;
  },
  context: CommandContext,
): ProcessFrame {
  const { role } = options;
  limitHeapForStreams();
  const log = createLogger({ level: config.log.level, fields: { role, node: config.node.name } });
  const metrics = createMetricsRegistry({ role, version: context.version });
  return {
    log,
    metrics,
    run: async (services, { checks, pages = {}, apply = () => undefined }) => {
      const watchdog = new WatchdogSwitch(config.watchdog, { log });
      watchdog.turn(options.isWatchedElsewhere !== true);
      const admin = adminService(options.admin, { metrics, checks, pages, log });
      const watch = configService(config, context.reload, { apply, metrics, log });
      try {
        const group = new ServiceGroup({ drainMs: options.drainMs }, { log });
        await group.run([...services, ...admin, ...watch], {
          signal: context.signal,
          ready: () => {
            log.info({ version: context.version }, 'ready');
            releaseStartupMemory();
          },
        });
      } finally {
        await watchdog.stop();
      }
    },
  };
}

function adminService(
  address: string,
  dependencies: {
    readonly metrics: Registry;
    readonly checks: Readonly<Record<string, ReadyCheck>>;
    readonly pages: Readonly<Record<string, AdminPage>>;
    readonly log: Logger;
  },
): Service[] {
  if (address === '') return [];
  const server = new AdminServer(splitAddress(address), dependencies);
  return [
    {
      name: 'admin',
      start: async () => {
        const bound = await server.start();
        dependencies.log.info({ address: bound }, 'admin server listens');
      },
      stop: async () => server.close(),
    },
  ];
}
