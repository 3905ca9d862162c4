import semver from 'semver';

/** What differs between containerd releases, as far as nodes are set up for them. */
export interface ContainerdRelease {
  /** Such as "2.1.4"; undefined where nobody knows. */
  readonly version: string | undefined;
  isAtLeast(version: string): boolean;
  isWithin(range: string): boolean;
}

/**
 * Understands what containerd and distributions call a release: "1.6.20~ds1", "v2.1.0-rc.1",
 * "1.7.28-k3s1", "2.2". A release nobody knows is neither at least nor within anything.
 *
 * @throws when a version was given that is none
 */
export function containerdRelease(given: string | undefined): ContainerdRelease {
  const text = given?.trim() ?? '';
  const parsed = semver.coerce(text);
  if (text !== '' && parsed === null) {
    throw new Error(`Cannot use "${given}" as a version of containerd: give one such as 2.1.4`);
  }
  return {
    version: parsed?.version,
    isAtLeast: (version) => parsed !== null && semver.gte(parsed, version),
    isWithin: (range) => parsed !== null && semver.satisfies(parsed, range),
  };
}
