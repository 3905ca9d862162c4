import type { Platform } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { NodeWarning, PartRole, PlatformState } from '../rpc/inventory.ts';

/** The version of the report's form; raised when something in it changes its meaning. */
export const REPORT_SCHEMA = 1;

/**
 * What would happen to a pull by a node that has nothing, with the upstream unreachable.
 * survives: it succeeds, and would without any one node. single-copy: it succeeds as long as one
 * certain node is there. not-servable: it fails.
 */
export type Verdict = 'survives' | 'single-copy' | 'not-servable';

/** From the worst to the best. */
export const VERDICTS: readonly Verdict[] = ['not-servable', 'single-copy', 'survives'];

/** Why an image is not servable, or is on one node alone. */
export type ReasonCode =
  /** No request can mean this name. */
  | 'name'
  /** The record or what it points at is no image that can be walked. */
  | 'unreadable'
  /** registry.allow and registry.deny. */
  | 'registry-not-allowed'
  /** mode, access or staleOn of the policy that matches. */
  | 'policy'
  /** The upstream's confirmation is older than staleMaxAgeMs. */
  | 'confirmation-too-old'
  /** The registry has never answered any node. */
  | 'registry-never-seen'
  /** The tag names something now that no node has. */
  | 'tag-moved'
  | 'index-missing'
  | 'manifest-missing'
  | 'config-missing'
  | 'layer-missing'
  /** Every copy is known to be wrong. */
  | 'corrupt'
  /** Every copy is gone with the next garbage collection. */
  | 'passing'
  | 'manifest-too-big'
  | 'foreign-layer'
  /** Nodes of this platform are asked for another entry of the index, which is missing. */
  | 'other-platform-first'
  | 'one-node';

export interface ReportReason {
  readonly code: ReasonCode;
  readonly message: string;
  /** The blobs that it is about, if any. */
  readonly digests?: readonly Digest[];
}

/** A blob that an image needs. Where it is stands under its digest in {@link Report.blobs}. */
export interface ReportPart {
  readonly role: PartRole;
  readonly digest: Digest;
  readonly sizeBytes: number;
}

/** One image on one platform. */
export interface ReportImage {
  /** "registry/repository:tag", "registry/repository@digest", or what a store calls it. */
  readonly image: string;
  /** "linux/amd64"; "unknown" where nothing tells. */
  readonly platform: string;
  /** The same, taken apart; null where nothing tells. */
  readonly runsOn: Platform | null;
  readonly verdict: Verdict;
  readonly reasons: readonly ReportReason[];
  /** What the name stands for: the newest statement that may be believed. */
  readonly digest: Digest | null;
  readonly mediaType: string | null;
  /** Of all parts, each once. */
  readonly sizeBytes: number;
  /** When the upstream confirmed what the tag names, ISO 8601; null: never. */
  readonly confirmedAt: string | null;
  /** When a store last wrote the name, ISO 8601. */
  readonly recordedAt: string | null;
  readonly isInUse: boolean;
  /** Also when the tag itself cannot be answered: a pull by digest would succeed. */
  readonly isServableByDigest: boolean;
  /** In the order in which a pull asks for them; not all of them where a manifest is missing. */
  readonly parts: readonly ReportPart[];
  /** Nodes that have an image of this name that points at this digest, and how much of it. */
  readonly nodes: readonly { readonly node: string; readonly state: PlatformState }[];
}

/** Where a blob is. */
export interface ReportBlob {
  readonly sizeBytes: number;
  /** Nodes that have it and keep it. */
  readonly nodes: readonly string[];
  /** Nodes that have it until garbage collection. */
  readonly passing: readonly string[];
  /** Nodes whose copy is known to be wrong. */
  readonly corrupt: readonly string[];
}

/** What a member of the cluster had to say. */
export interface ReportMember {
  readonly node: string;
  /** too-old: its agent knows no inventories. */
  readonly state: 'answered' | 'too-old' | 'no-answer';
  /** Why there is no answer. */
  readonly error?: string;
  readonly store?: string;
  readonly runtimeVersion?: string;
  readonly snapshotter?: string;
  readonly discardsLayers?: boolean;
  readonly images?: number;
  readonly warnings: readonly NodeWarning[];
}

/** How many of the images are in which state. An image counts once for each platform. */
export interface ReportSummary {
  readonly images: number;
  readonly survives: number;
  readonly singleCopy: number;
  readonly notServable: number;
  /** Of survives and single-copy together, 0 to 1; 1 where there are no images. */
  readonly servableShare: number;
}

/** What would still start. */
export interface Report {
  readonly schema: typeof REPORT_SCHEMA;
  /** ISO 8601. */
  readonly takenAt: string;
  readonly tookMs: number;
  /** Every member has answered; otherwise there may be more copies, and more images. */
  readonly isComplete: boolean;
  readonly members: readonly ReportMember[];
  readonly summary: ReportSummary;
  /** The worst first. */
  readonly images: readonly ReportImage[];
  /** By digest: every blob that one of the images needs. */
  readonly blobs: Readonly<Record<Digest, ReportBlob>>;
}
