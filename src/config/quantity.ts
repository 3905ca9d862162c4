import type { Unit } from './setting.ts';

const factors: Readonly<Record<'milliseconds' | 'bytes', ReadonlyMap<string, number>>> = {
  milliseconds: new Map([
    ['ms', 1],
    ['s', 1000],
    ['m', 60_000],
    ['min', 60_000],
    ['h', 3_600_000],
    ['d', 86_400_000],
  ]),
  bytes: new Map([
    ['b', 1],
    ['kb', 1000],
    ['mb', 1000 ** 2],
    ['gb', 1000 ** 3],
    ['tb', 1000 ** 4],
    ['kib', 1024],
    ['mib', 1024 ** 2],
    ['gib', 1024 ** 3],
    ['tib', 1024 ** 4],
  ]),
};

/** How a quantity may be written, for messages and documentation. */
export const quantityExamples: Readonly<Record<Unit, string>> = {
  milliseconds: '400, "400ms", "2s" or "1h30m"',
  bytes: '65536, "64KiB" or "20GiB"',
  'bytes per second': '65536, "64KiB" or "64MiB/s"',
  items: '64',
};

/**
 * Reads "400ms", "1h30m", "64MiB" or a bare number, which is in the unit itself (milliseconds,
 * bytes, …). Letters of either case; at most 40 characters.
 *
 * @returns undefined when the text is no such quantity or not a whole number of its unit
 */
export function parseQuantity(written: string, unit: Unit): number | undefined {
  const trimmed = written.trim().toLowerCase();
  if (trimmed.length > 40) {
    return undefined;
  }
  if (/^\d+$/.test(trimmed)) {
    return safeInteger(Number(trimmed));
  }
  switch (unit) {
    case 'items':
      return undefined;
    case 'milliseconds':
      return sum(trimmed, factors.milliseconds, { mayRepeat: true });
    case 'bytes':
      return sum(trimmed, factors.bytes, { mayRepeat: false });
    case 'bytes per second':
      return sum(trimmed.replace(/\/s$/, ''), factors.bytes, { mayRepeat: false });
  }
}

function sum(
  written: string,
  units: ReadonlyMap<string, number>,
  options: { readonly mayRepeat: boolean },
): number | undefined {
  const part = /(\d+(?:\.\d+)?) ?([a-z]+)/y;
  let total = 0;
  let lastFactor = Number.POSITIVE_INFINITY;
  while (part.lastIndex < written.length) {
    const match = part.exec(written);
    const factor = units.get(match?.[2] ?? '');
    // Each part must be smaller in unit than the one before: "30m1h" is more likely a mistake.
    if (match === null || factor === undefined || factor >= lastFactor) {
      return undefined;
    }
    total += Number(match[1]) * factor;
    lastFactor = options.mayRepeat ? factor : 0;
  }
  // 0.1 s and the like are not exact in binary.
  const rounded = Math.round(total);
  return written !== '' && Math.abs(total - rounded) < 1e-6 ? safeInteger(rounded) : undefined;
}

function safeInteger(value: number): number | undefined {
  return Number.isSafeInteger(value) ? value : undefined;
}

const sizeSteps: readonly (readonly [string, number])[] = [
  ['TiB', 1024 ** 4],
  ['GiB', 1024 ** 3],
  ['MiB', 1024 ** 2],
  ['KiB', 1024],
];
const timeSteps: readonly (readonly [string, number])[] = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['min', 60_000],
  ['s', 1000],
];

/** Writes a quantity the way people say it: 8 MiB, 25 s, 512. */
export function formatQuantity(value: number, unit: Unit): string {
  switch (unit) {
    case 'items':
      return String(value);
    case 'milliseconds':
      return scaled(value, timeSteps, 'ms');
    case 'bytes':
      return scaled(value, sizeSteps, 'bytes');
    case 'bytes per second':
      return `${scaled(value, sizeSteps, 'bytes')}/s`;
  }
}

function scaled(
  value: number,
  steps: readonly (readonly [string, number])[],
  smallest: string,
): string {
  const step = steps.find(([, factor]) => value >= factor && value % factor === 0);
  return step === undefined ? `${value} ${smallest}` : `${value / step[1]} ${step[0]}`;
}
