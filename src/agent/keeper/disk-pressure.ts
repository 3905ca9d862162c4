/** Where copies are let go, as percent of the file system that is used. */
export interface PressureLimits {
  /** From here on copies that only Salvor keeps go, one after the other. */
  readonly releaseAtPercent: number;
  /** From here on all of them go at once. */
  readonly dropAtPercent: number;
}

export type PressureLevel = 'none' | 'release' | 'drop';

/** So far below the threshold pressure ends, and so far space is made. */
const CALM_PERCENT = 3;

/** What share has to be used, at most, before anything new is kept. */
export function calmPercent({ releaseAtPercent }: PressureLimits): number {
  return Math.max(0, releaseAtPercent - CALM_PERCENT);
}

/**
 * How hard the disk is pressed, with memory: what began at one percentage ends some percent below
 * it, so that a disk at the threshold does not go back and forth.
 */
export function nextPressure(
  level: PressureLevel,
  percent: number,
  limits: PressureLimits,
): PressureLevel {
  if (percent >= limits.dropAtPercent) return 'drop';
  if (percent >= limits.releaseAtPercent) return 'release';
  return level !== 'none' && percent > calmPercent(limits) ? 'release' : 'none';
}
