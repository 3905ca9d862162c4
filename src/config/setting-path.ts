import type { Config } from './schema.ts';

/**
 * The value of a setting in a configuration.
 *
 * @param key path of the setting, such as registry.limits.maxStreams
 */
export function valueAt(config: Config, key: string): unknown {
  let value: unknown = config;
  for (const name of key.split('.')) value = (value as Record<string, unknown>)[name];
  return value;
}

/**
 * Sets the value of a setting in a configuration that is still being made.
 *
 * @param key as in {@link valueAt}
 */
export function assign(config: object, key: string, value: unknown): void {
  const path = key.split('.');
  const last = path.pop() ?? key;
  let target = config as Record<string, unknown>;
  for (const name of path) {
    target = target[name] as Record<string, unknown>;
  }
  target[last] = value;
}

/** Closes a value to change all the way down. */
export function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const inner of Object.values(value)) {
      deepFreeze(inner);
    }
    Object.freeze(value);
  }
  return value;
}
