import { setImmediate as breathe } from 'node:timers/promises';
import type { Digest } from '../oci/digest.ts';
import { isIndexMediaType } from '../oci/media-type.ts';
import { parseReference, formatReference, type Reference } from '../oci/reference.ts';
import { newestTag } from '../policy/newest-tag.ts';
import type { TagStatement } from '../rpc/agent-protocol.ts';
import {
  formatPlatform,
  platformState,
  type ImagePart,
  type ImageTree,
  type PlatformTree,
} from '../rpc/inventory.ts';
import type { ClusterContent, PartHolders } from './cluster-content.ts';
import {
  REPORT_SCHEMA,
  VERDICTS,
  type Report,
  type ReportBlob,
  type ReportImage,
  type ReportMember,
  type ReportReason,
  type ReportSummary,
} from './report.ts';
import {
  contentGaps,
  distinct,
  gateGap,
  loneCopies,
  reason,
  ruleGaps,
  tagGaps,
  verdictOf,
  type HoldersOf,
  type ReportRules,
} from './verdict.ts';

/** How many images are judged before others get their turn on the event loop. */
const IMAGES_A_TURN = 50;

export interface ReportFacts {
  readonly members: readonly ReportMember[];
  readonly takenAtMs: number;
  /** Asked when all is done. */
  readonly tookMs: () => number;
}

/** Judges every image that some node has, as a pull with the upstream unreachable would find it. */
export async function buildReport(
  content: ClusterContent,
  rules: ReportRules,
  facts: ReportFacts,
): Promise<Report> {
  const judge = new Judge(content, rules, facts.takenAtMs);
  const images: ReportImage[] = [];
  let count = 0;
  for (const name of judge.names()) {
    images.push(...judge.image(name));
    count += 1;
    if (count % IMAGES_A_TURN === 0) await breathe();
  }
  images.sort(worstFirst);
  const blobs = judge.blobs(images);
  return {
    schema: REPORT_SCHEMA,
    takenAt: new Date(facts.takenAtMs).toISOString(),
    tookMs: Math.round(facts.tookMs()),
    isComplete: facts.members.every(({ state }) => state === 'answered'),
    members: facts.members,
    summary: summarize(images),
    images,
    blobs,
  };
}

/** How many images there are of each verdict. */
export function summarize(images: readonly Pick<ReportImage, 'verdict'>[]): ReportSummary {
  const count = (verdict: string): number =>
    images.reduce((sum, image) => sum + (image.verdict === verdict ? 1 : 0), 0);
  const survives = count('survives');
  const singleCopy = count('single-copy');
  return {
    images: images.length,
    survives,
    singleCopy,
    notServable: count('not-servable'),
    servableShare: images.length === 0 ? 1 : (survives + singleCopy) / images.length,
  };
}

function worstFirst(one: ReportImage, other: ReportImage): number {
  const rank = (image: ReportImage): number => VERDICTS.indexOf(image.verdict) * 2 + use(image);
  const use = (image: ReportImage): number => (image.isInUse ? 0 : 1);
  return (
    rank(one) - rank(other) ||
    compare(one.image, other.image) ||
    compare(one.platform, other.platform)
  );
}

function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

/** What a name is about to be judged by. */
interface Subject {
  readonly name: string;
  readonly reference: Reference | undefined;
  readonly digest: Digest | undefined;
  readonly tag: TagStatement | undefined;
  /** What stands against the name itself, on every platform. */
  readonly gaps: readonly ReportReason[];
  /** The part of it that a pull by digest would meet too. */
  readonly digestGaps: readonly ReportReason[];
}

class Judge {
  readonly #content: ClusterContent;
  readonly #rules: ReportRules;
  readonly #nowMs: number;
  readonly #holders = new Map<string, PartHolders>();

  constructor(content: ClusterContent, rules: ReportRules, nowMs: number) {
    this.#content = content;
    this.#rules = rules;
    this.#nowMs = nowMs;
  }

  /**
   * Names that are images of their own: image ids are not, nor is "repository@digest" where a tag
   * of that repository names the digest.
   */
  names(): string[] {
    const tagged = new Set<string>();
    const pinned: string[] = [];
    const names: string[] = [];
    for (const name of this.#content.names()) {
      if (name.startsWith('sha256:') || name.startsWith('sha512:')) continue;
      const reference = canonical(name);
      if (reference?.digest !== undefined) {
        pinned.push(name);
        continue;
      }
      names.push(name);
      if (reference === undefined) continue;
      const digest = this.#newest(name)?.digest;
      if (digest !== undefined) {
        tagged.add(formatReference({ ...withoutTag(reference), digest }));
      }
    }
    return [...names, ...pinned.filter((name) => !tagged.has(name))];
  }

  /** An image on each platform of which some node has the manifest, or what is wrong with it. */
  image(name: string): ReportImage[] {
    const subject = this.#subject(name);
    const tree = subject.digest === undefined ? undefined : this.#content.tree(subject.digest);
    const present = tree?.platforms.filter((one) => this.#hasManifest(one)) ?? [];
    if (tree === undefined || present.length === 0) return [this.#nothing(subject, tree)];
    return present.map((platform) => this.#onPlatform(subject, tree, platform));
  }

  /** Where everything is that these images need. */
  blobs(images: readonly ReportImage[]): Record<Digest, ReportBlob> {
    const blobs: Record<Digest, ReportBlob> = {};
    for (const { parts } of images) {
      for (const { digest, sizeBytes, role } of parts) {
        if (Object.hasOwn(blobs, digest)) continue;
        const holders = this.#holdersOf({ digest, sizeBytes, role, isForeign: false });
        const { kept: nodes, passing, corrupt } = holders;
        blobs[digest] = { sizeBytes, nodes, passing, corrupt };
      }
    }
    return blobs;
  }

  readonly #holdersOf: HoldersOf = (part) => {
    const key = `${part.digest} ${part.sizeBytes}`;
    const known = this.#holders.get(key);
    if (known !== undefined) return known;
    const holders = this.#content.holders(part);
    this.#holders.set(key, holders);
    return holders;
  };

  #newest(name: string): TagStatement | undefined {
    return newestTag([{ tags: this.#content.statements(name) }], this.#nowMs);
  }

  #subject(name: string): Subject {
    const reference = canonical(name);
    const images = this.#content.images(name);
    const own = images.find(({ target }) => target !== undefined)?.target;
    if (reference === undefined) {
      const gap = reason('name', 'no pull asks for this name: it is not in the normal form');
      const gaps = [gap];
      return { name, reference, digest: own?.digest, tag: own, gaps, digestGaps: [] };
    }
    const digestGaps = ruleGaps(reference, this.#rules);
    if (reference.digest !== undefined) {
      return { name, reference, digest: reference.digest, tag: own, gaps: digestGaps, digestGaps };
    }
    const tag = this.#newest(name);
    if (tag === undefined) {
      const problem = images.find((image) => image.problem !== undefined)?.problem;
      const text = problem ?? 'no node has what its record of the tag points at';
      const gaps = [...digestGaps, reason(problem ? 'unreadable' : 'manifest-missing', text)];
      return { name, reference, digest: own?.digest, tag: own, gaps, digestGaps };
    }
    const isSeen =
      tag.observedAtMs !== undefined || this.#content.hasSeenRegistry(reference.registry);
    const facts = { rules: this.#rules, nowMs: this.#nowMs, isSeen };
    const gaps = [...digestGaps, ...tagGaps(reference, tag, facts)];
    return { name, reference, digest: tag.digest, tag, gaps, digestGaps };
  }

  #hasManifest(tree: PlatformTree): boolean {
    const manifest = tree.parts.find(({ role }) => role === 'manifest');
    if (manifest === undefined) return false;
    const { kept, passing, corrupt } = this.#holdersOf(manifest);
    return kept.length + passing.length + corrupt.length > 0;
  }

  #onPlatform(subject: Subject, tree: ImageTree, platform: PlatformTree): ReportImage {
    const holdersOf = this.#holdersOf;
    const missing = contentGaps(platform, holdersOf, this.#rules);
    const isTag = subject.reference !== undefined && subject.reference.digest === undefined;
    const gate = isTag ? gateGap(tree, platform, holdersOf) : undefined;
    const gaps = [...subject.gaps, ...missing, ...(gate === undefined ? [] : [gate])];
    const reasons = gaps.length > 0 ? gaps : loneCopies(platform, holdersOf);
    const isReachable = subject.reference !== undefined;
    return {
      ...this.#described(subject, tree),
      platform: formatPlatform(platform.platform),
      runsOn: platform.platform ?? null,
      verdict: verdictOf(reasons),
      reasons,
      isServableByDigest: isReachable && subject.digestGaps.length === 0 && missing.length === 0,
      sizeBytes: distinct(platform.parts).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      parts: platform.parts.map(toReportPart),
      nodes: this.#nodesOf(subject, platform),
    };
  }

  /** An image of which no node has any platform's manifest. */
  #nothing(subject: Subject, tree: ImageTree | undefined): ReportImage {
    const { digest, tag } = subject;
    const gaps = [...subject.gaps];
    const hasIndex = tree !== undefined && tree.problem === undefined;
    const isIndex = isIndexMediaType(tree?.mediaType ?? tag?.mediaType);
    const root = digest !== undefined &&
      tag !== undefined && {
        role: isIndex ? ('index' as const) : ('manifest' as const),
        digest,
        sizeBytes: tree?.sizeBytes ?? tag.sizeBytes,
        isForeign: false,
      };
    if (hasIndex) {
      gaps.push(reason('manifest-missing', 'no node has a manifest that the index lists'));
    } else if (tree?.problem !== undefined) {
      gaps.push(...this.#unreadable(tree, root));
    } else if (tag?.observedAtMs !== undefined) {
      const when = new Date(tag.observedAtMs).toISOString();
      const text = `the upstream confirmed at ${when} that the tag names ${tag.digest}`;
      gaps.push(reason('tag-moved', `${text}, which no node has`, [tag.digest]));
    } else if (gaps.length === 0) {
      const problem = this.#content.images(subject.name).find((one) => one.problem)?.problem;
      gaps.push(reason('unreadable', problem ?? 'what it points at is on no node'));
    }
    return {
      ...this.#described(subject, tree),
      platform: formatPlatform(undefined),
      runsOn: null,
      verdict: verdictOf(gaps),
      reasons: gaps,
      isServableByDigest: false,
      sizeBytes: root === false ? 0 : root.sizeBytes,
      parts: root === false ? [] : [toReportPart(root)],
      nodes: [],
    };
  }

  #unreadable(tree: ImageTree, root: ImagePart | false): ReportReason[] {
    if (root === false) return [reason('unreadable', tree.problem ?? 'it cannot be read')];
    const { kept, passing, corrupt } = this.#holdersOf(root);
    if (kept.length + passing.length + corrupt.length === 0) {
      const code = root.role === 'index' ? 'index-missing' : 'manifest-missing';
      return [reason(code, `no node has the ${root.role} ${tree.root}`, [tree.root])];
    }
    if (kept.length + passing.length === 0) {
      const text = `every copy of ${tree.root} is wrong: ${corrupt.join(', ')}`;
      return [reason('corrupt', text, [tree.root])];
    }
    return [reason('unreadable', tree.problem ?? 'it cannot be read', [tree.root])];
  }

  #described(
    subject: Subject,
    tree: ImageTree | undefined,
  ): Pick<
    ReportImage,
    'image' | 'digest' | 'mediaType' | 'confirmedAt' | 'recordedAt' | 'isInUse'
  > {
    const { name, digest, tag } = subject;
    const images = this.#content.images(name);
    const recordedAtMs = Math.max(...images.map(({ target }) => target?.recordedAtMs ?? 0), 0);
    return {
      image: name,
      digest: digest ?? null,
      mediaType: tree?.mediaType ?? tag?.mediaType ?? null,
      confirmedAt: toIso(tag?.observedAtMs),
      recordedAt: toIso(recordedAtMs === 0 ? undefined : recordedAtMs),
      isInUse: images.some(({ isInUse }) => isInUse),
    };
  }

  #nodesOf(subject: Subject, platform: PlatformTree): ReportImage['nodes'] {
    return this.#content.images(subject.name).flatMap(({ node, target }) => {
      const inventory = this.#content.inventory(node);
      if (inventory === undefined || target?.digest !== subject.digest) return [];
      return [{ node, state: platformState(platform, inventory.blobs).state }];
    });
  }
}

/** @returns undefined when nothing asks a registry by this name */
function canonical(name: string): Reference | undefined {
  const reference = parseReference(name);
  return reference.ok && formatReference(reference.value) === name ? reference.value : undefined;
}

function withoutTag({ registry, repository }: Reference): Omit<Reference, 'tag'> {
  return { registry, repository };
}

function toReportPart({ role, digest, sizeBytes }: ImagePart): ReportImage['parts'][number] {
  return { role, digest, sizeBytes };
}

function toIso(timeMs: number | undefined): string | null {
  return timeMs === undefined ? null : new Date(timeMs).toISOString();
}
