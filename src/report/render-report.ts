import { VERDICTS, type Report, type ReportImage, type ReportMember } from './report.ts';

export interface RenderOptions {
  /** How many images are shown at most, the worst first. */
  readonly maxImages: number;
}

const VERDICT_WORDS: Readonly<Record<ReportImage['verdict'], string>> = {
  'not-servable': 'NOT SERVABLE: a pull by a new node would fail',
  'single-copy': 'SINGLE COPY: servable as long as one node is there',
  survives: 'SURVIVES: every blob is on two nodes or more',
};
const KIB = 1024;
const SIZE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** A report as text for people: the headline, what is missing of it, then images with reasons. */
export function renderReport(report: Report, options: RenderOptions): string {
  const lines = [...headline(report), ...memberLines(report.members)];
  const shown = report.images.slice(0, options.maxImages);
  for (const verdict of VERDICTS) {
    const images = shown.filter((image) => image.verdict === verdict);
    if (images.length === 0) continue;
    lines.push('', VERDICT_WORDS[verdict]);
    const width = Math.max(...images.map(({ image }) => image.length));
    for (const image of images) lines.push(...imageLines(image, width));
  }
  const hidden = report.images.length - shown.length;
  if (hidden > 0) lines.push('', `… and ${hidden} more: --all shows them`);
  return `${lines.join('\n')}\n`;
}

function headline({ isComplete, members, summary, takenAt }: Report): string[] {
  const { images, survives, singleCopy, notServable, servableShare } = summary;
  // Rounded down: 100 % must not hide one that fails.
  const percent = Math.floor(servableShare * 1000) / 10;
  const answered = members.filter(({ state }) => state === 'answered').length;
  return [
    `${survives + singleCopy} of ${images} images (${percent} %) can be served without their ` +
      `registries: ${survives} survive the loss of any node, ${singleCopy} are on one node ` +
      `alone, ${notServable} cannot be served`,
    `${answered} of ${members.length} nodes answered at ${takenAt}` +
      (isComplete ? '' : '; INCOMPLETE: what the others have is not counted'),
  ];
}

function memberLines(members: readonly ReportMember[]): string[] {
  return members.flatMap((member) => [
    ...(member.state === 'too-old' ? [`! ${member.node}: its agent is too old for reports`] : []),
    ...(member.state === 'no-answer' ? [`! ${member.node}: ${member.error ?? 'no answer'}`] : []),
    ...member.warnings.map(({ message }) => `! ${member.node}: ${message}`),
  ]);
}

function imageLines(image: ReportImage, width: number): string[] {
  const { confirmedAt, isInUse, nodes, platform, reasons, sizeBytes } = image;
  const where = nodes.map(({ node, state }) =>
    state === 'complete' ? node : `${node} (${state})`,
  );
  const facts = [
    platform,
    formatBytes(sizeBytes),
    ...(isInUse ? ['in use'] : []),
    confirmedAt === null ? 'never confirmed' : `confirmed ${confirmedAt.slice(0, 16)}Z`,
    ...(where.length > 0 ? [`on ${where.join(', ')}`] : []),
  ];
  const byDigest =
    image.verdict === 'not-servable' && image.isServableByDigest
      ? ['      a pull by digest would succeed']
      : [];
  return [
    `  ${image.image.padEnd(width)}  ${facts.join(', ')}`,
    ...reasons.map(({ code, message }) => `      ${code}: ${message}`),
    ...byDigest,
  ];
}

/** Writes a size as people do: "1.5 GiB". */
export function formatBytes(sizeBytes: number): string {
  const power = Math.min(
    SIZE_UNITS.length - 1,
    Math.floor(Math.log(Math.max(1, sizeBytes)) / Math.log(KIB)),
  );
  const value = sizeBytes / KIB ** power;
  return `${power === 0 ? value : value.toFixed(1)} ${SIZE_UNITS[power] ?? 'B'}`;
}
