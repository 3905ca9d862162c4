import type { Config } from '../config/schema.ts';
import type { ConfigSource } from './config-source.ts';
import type { Hangups } from './hangup-signal.ts';

/** What every command is given beside the configuration. */
export interface CommandContext {
  /** Aborts at the first SIGTERM or SIGINT: stop what runs, then return. */
  readonly signal: AbortSignal;
  /** Of the program, for logs and `salvor_build_info`. */
  readonly version: string;
  /** How a server learns of a changed configuration; left out where nothing runs that long. */
  readonly reload?: { readonly source: ConfigSource; readonly hangups: Pick<Hangups, 'listen'> };
}

/** What `salvor demo` takes beside the settings. */
export interface DemoOptions {
  /** A real image to use instead of the built-in one, as `docker pull` would name it. */
  readonly image?: string;
  /** Leave everything running afterwards, until the signal. */
  readonly keep: boolean;
}

/**
 * Runs a command to its end, which for servers is the signal.
 *
 * @throws when it failed; the message becomes the last line on standard error
 */
export type RunCommand = (config: Config, context: CommandContext) => Promise<void>;

/** The same for the demo. */
export type RunDemo = (config: Config, context: CommandContext & DemoOptions) => Promise<void>;

/** How the code of each command is fetched, only when that command is called. */
export interface CommandLoaders {
  readonly registry: () => Promise<RunCommand>;
  readonly agent: () => Promise<RunCommand>;
  readonly start: () => Promise<RunCommand>;
  readonly demo: () => Promise<RunDemo>;
}
