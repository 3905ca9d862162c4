import type { Digest } from '../oci/digest.ts';
import { MAX_MANIFEST_SIZE_BYTES, platformMatches } from '../oci/manifest.ts';
import { allowsPeers, allowsStale, type PullPolicy } from '../policy/policy.ts';
import type { TagStatement } from '../rpc/agent-protocol.ts';
import {
  formatPlatform,
  type ImagePart,
  type ImageTree,
  type PartRole,
  type PlatformTree,
} from '../rpc/inventory.ts';
import type { PartHolders } from './cluster-content.ts';
import type { ReasonCode, ReportReason, Verdict } from './report.ts';

/** What the cluster's registries go by. */
export interface ReportRules {
  /** @param name "registry/repository" */
  readonly policyFor: (name: string) => PullPolicy;
  readonly allowsRegistry: (registry: string) => boolean;
  readonly maxManifestBytes: number;
}

/** A failure that stands for an upstream that cannot be reached. */
const OUTAGE_KIND = 'refused';
/** How many digests a message spells out. */
const SPELLED_OUT = 3;

/** What keeps registries from answering for a repository at all. */
export function ruleGaps(
  place: { readonly registry: string; readonly repository: string },
  rules: ReportRules,
): ReportReason[] {
  const { registry, repository } = place;
  if (!rules.allowsRegistry(registry)) {
    return [reason('registry-not-allowed', `registry.allow and deny do not let ${registry} in`)];
  }
  const policy = rules.policyFor(`${registry}/${repository}`);
  if (allowsPeers(policy)) return [];
  const why = policy.mode === 'serve' ? `access is ${policy.access}` : `its mode is ${policy.mode}`;
  return [reason('policy', `the policy does not let nodes answer: ${why}`)];
}

/** What keeps a tag from being answered, whatever it names and wherever that is. */
export function tagGaps(
  name: { readonly registry: string; readonly repository: string },
  tag: TagStatement,
  facts: { readonly rules: ReportRules; readonly nowMs: number; readonly isSeen: boolean },
): ReportReason[] {
  const { rules, nowMs, isSeen } = facts;
  const policy = rules.policyFor(`${name.registry}/${name.repository}`);
  const gaps: ReportReason[] = [];
  if (allowsPeers(policy) && !allowsStale(policy, OUTAGE_KIND)) {
    gaps.push(reason('policy', 'staleOn of the policy does not name "unreachable"'));
  }
  const { staleMaxAgeMs } = policy;
  const ageMs = nowMs - (tag.observedAtMs ?? Number.NEGATIVE_INFINITY);
  if (staleMaxAgeMs > 0 && ageMs > staleMaxAgeMs) {
    const when =
      tag.observedAtMs === undefined
        ? 'the upstream has never confirmed what the tag names'
        : `the upstream confirmed the tag at ${new Date(tag.observedAtMs).toISOString()}`;
    gaps.push(
      reason('confirmation-too-old', `${when}, and staleMaxAgeMs allows ${staleMaxAgeMs} ms`),
    );
  }
  if (!isSeen) {
    const text = `${name.registry} has never answered any node, so that its silence is no outage`;
    gaps.push(reason('registry-never-seen', text));
  }
  return gaps;
}

/** Where the parts of an image are. */
export type HoldersOf = (part: ImagePart) => PartHolders;

/** What an image lacks on one platform. */
export function contentGaps(
  tree: PlatformTree,
  holdersOf: HoldersOf,
  rules: Pick<ReportRules, 'maxManifestBytes'>,
): ReportReason[] {
  const gaps: ReportReason[] = [];
  const lacking = new Map<ReasonCode, ImagePart[]>();
  const lack = (code: ReasonCode, part: ImagePart): void => {
    lacking.set(code, [...(lacking.get(code) ?? []), part]);
  };
  const maxBytes = Math.min(rules.maxManifestBytes, MAX_MANIFEST_SIZE_BYTES);
  for (const part of distinct(tree.parts)) {
    const isManifest = part.role === 'index' || part.role === 'manifest';
    if (isManifest && part.sizeBytes > maxBytes) lack('manifest-too-big', part);
    if (part.isForeign) lack('foreign-layer', part);
    const { kept, passing, corrupt } = holdersOf(part);
    if (kept.length > 0) continue;
    if (passing.length > 0) lack('passing', part);
    else if (corrupt.length > 0) lack('corrupt', part);
    else lack(MISSING[part.role], part);
  }
  for (const [code, parts] of lacking) gaps.push(lackReason(code, parts, { tree, holdersOf }));
  if (!tree.isRead && gaps.length === 0) {
    gaps.push(reason('unreadable', tree.problem ?? 'no node could read the manifest'));
  }
  return gaps;
}

/**
 * Registries look whether a tag's image is there before they name it, and look at the first entry
 * of the index that fits the node.
 */
export function gateGap(
  tree: ImageTree,
  wanted: PlatformTree,
  holdersOf: HoldersOf,
): ReportReason | undefined {
  const { platform, isDeclared } = wanted;
  if (!isDeclared || platform === undefined) return undefined;
  const { os, architecture } = platform;
  const first = tree.platforms.find(
    (one) =>
      one.isDeclared &&
      one.platform !== undefined &&
      platformMatches(one.platform, { os, architecture }),
  );
  if (first === undefined || first.manifest === wanted.manifest) return undefined;
  const looked = first.parts.filter(({ role }) => role === 'manifest' || role === 'config');
  const isThere = first.isRead && looked.every((part) => holdersOf(part).kept.length > 0);
  if (isThere) return undefined;
  return reason(
    'other-platform-first',
    `registries look first at ${formatPlatform(first.platform)}, ${first.manifest}, ` +
      'whose manifest or config is on no node',
    [first.manifest],
  );
}

/** Which blobs only one node has; none when every blob is on two. */
export function loneCopies(tree: PlatformTree, holdersOf: HoldersOf): ReportReason[] {
  const byNode = new Map<string, ImagePart[]>();
  for (const part of distinct(tree.parts)) {
    const [node, ...others] = holdersOf(part).kept;
    if (node === undefined || others.length > 0) continue;
    byNode.set(node, [...(byNode.get(node) ?? []), part]);
  }
  return Array.from(byNode, ([node, parts]) =>
    reason('one-node', `only ${node} has ${describe(parts)}`, digestsOf(parts)),
  );
}

/** The verdict that reasons amount to. */
export function verdictOf(reasons: readonly ReportReason[]): Verdict {
  if (reasons.some(({ code }) => code !== 'one-node')) return 'not-servable';
  return reasons.length > 0 ? 'single-copy' : 'survives';
}

/** A blob that an image needs twice is needed once. */
export function distinct(parts: readonly ImagePart[]): ImagePart[] {
  return [...new Map(parts.map((part) => [part.digest, part])).values()];
}

export function reason(
  code: ReasonCode,
  message: string,
  digests?: readonly Digest[],
): ReportReason {
  return { code, message, ...(digests === undefined ? {} : { digests }) };
}

const MISSING: Readonly<Record<PartRole, ReasonCode>> = {
  index: 'index-missing',
  manifest: 'manifest-missing',
  config: 'config-missing',
  layer: 'layer-missing',
};

function lackReason(
  code: ReasonCode,
  parts: readonly ImagePart[],
  content: { readonly tree: PlatformTree; readonly holdersOf: HoldersOf },
): ReportReason {
  const what = describe(parts);
  const isOne = parts.length === 1;
  const nodesWhere = (state: 'passing' | 'corrupt'): string =>
    [...new Set(parts.flatMap((part) => content.holdersOf(part)[state]))].join(', ');
  const { lazySnapshotter } = content.tree;
  const lazily =
    lazySnapshotter === undefined
      ? ''
      : `; ${lazySnapshotter} mounts the image without fetching its layers`;
  const texts: Readonly<Partial<Record<ReasonCode, string>>> = {
    'manifest-too-big': `${what} ${isOne ? 'is' : 'are'} larger than registries accept`,
    'foreign-layer': `${what} ${isOne ? 'comes' : 'come'} from URLs that no mirror stands for`,
    passing: `nothing keeps ${what}: garbage collection takes it from ${nodesWhere('passing')}`,
    corrupt: `every copy of ${what} is wrong: ${nodesWhere('corrupt')}`,
  };
  const missing = `no node has ${what}${code === 'layer-missing' ? lazily : ''}`;
  return reason(code, texts[code] ?? missing, digestsOf(parts));
}

function describe(parts: readonly ImagePart[]): string {
  const roles = [...new Set(parts.map(({ role }) => role))];
  const noun = roles.length === 1 ? (roles[0] ?? 'blob') : 'blob';
  const [first] = parts;
  if (parts.length === 1 && first !== undefined) return `the ${noun} ${first.digest}`;
  const spelled = parts.slice(0, SPELLED_OUT).map(({ digest }) => digest);
  const more = parts.length > SPELLED_OUT ? ', …' : '';
  const plural = noun === 'index' ? 'indexes' : `${noun}s`;
  return `${parts.length} ${plural} (${spelled.join(', ')}${more})`;
}

function digestsOf(parts: readonly ImagePart[]): Digest[] {
  return parts.map(({ digest }) => digest);
}
