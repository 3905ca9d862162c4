import { namePattern } from '../oci/name-pattern.ts';
import { summarize } from './build-report.ts';
import { VERDICTS, type Report, type ReportImage, type Verdict } from './report.ts';

/** What is wanted of a report; what is left out does not matter. */
export interface ReportFilter {
  /** "docker.io/library/*", "*" standing for anything. */
  readonly image?: string;
  /** "linux/arm64", or the beginning of it. */
  readonly platform?: string;
  /** A node that has an image of that name, or some blob of it. */
  readonly node?: string;
  readonly verdicts?: readonly Verdict[];
}

/** A report about fewer images; its summary counts those alone. */
export function filterReport(report: Report, filter: ReportFilter): Report {
  const { image, node, platform, verdicts } = filter;
  const pattern = image === undefined ? undefined : namePattern(image);
  const isOn = (one: ReportImage, name: string): boolean =>
    one.nodes.some((at) => at.node === name) ||
    one.parts.some(({ digest }) => report.blobs[digest]?.nodes.includes(name) === true);
  const images = report.images.filter(
    (one) =>
      (pattern === undefined || pattern.test(one.image)) &&
      (platform === undefined || `${one.platform}/`.startsWith(`${platform}/`)) &&
      (verdicts === undefined || verdicts.includes(one.verdict)) &&
      (node === undefined || isOn(one, node)),
  );
  if (images.length === report.images.length) return report;
  const needed = new Set(images.flatMap(({ parts }) => parts.map(({ digest }) => digest)));
  const blobs = Object.fromEntries(
    Object.entries(report.blobs).filter(([digest]) => needed.has(digest as never)),
  );
  return { ...report, images, blobs, summary: summarize(images) };
}

/** @returns undefined when it is none */
export function parseVerdict(text: string): Verdict | undefined {
  return VERDICTS.find((verdict) => verdict === text);
}
