/** One thing that is wrong with a configuration. */
export interface ConfigMistake {
  /** Path of the setting, such as registry.limits.maxStreams. */
  readonly key: string;
  /** Where it was given: "file /etc/salvor.yaml", "environment SALVOR_…", "flag --…", "default". */
  readonly source: string;
  /** The value as found, shortened; left out where there is none to show. */
  readonly found?: string;
  /** What would have been right. */
  readonly expected: string;
}

/** A configuration that cannot be used, with everything that is wrong with it. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly mistakes: readonly ConfigMistake[];

  constructor(mistakes: readonly ConfigMistake[]) {
    const count = mistakes.length === 1 ? '1 mistake' : `${mistakes.length} mistakes`;
    super(
      [
        `Cannot use the configuration: ${count}`,
        ...mistakes.map((mistake) => `  ${describeMistake(mistake)}`),
      ].join('\n'),
    );
    this.mistakes = mistakes;
  }
}

/** One mistake in words, on one line unless what was found has several. */
export function describeMistake(mistake: ConfigMistake): string {
  const found = mistake.found === undefined ? '' : `found ${mistake.found}, `;
  return `${mistake.key} (${mistake.source}): ${found}expected ${mistake.expected}`;
}

const maxShownLength = 80;

/** Shows a value in a message: as JSON, at most 80 characters, without a URL's user and password. */
export function showValue(value: unknown): string {
  // JSON.stringify gives undefined for functions and the like, which no source can hold.
  const shown = (JSON.stringify(value) as string | undefined) ?? String(value);
  const safe = shown.replace(/:\/\/[^/@"\s]*@/g, '://…@');
  return safe.length > maxShownLength ? `${safe.slice(0, maxShownLength)}…` : safe;
}
