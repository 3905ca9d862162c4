/** Labels beside something in containerd's metadata. */
type Labels = Readonly<Record<string, string>>;

/** What decides in one namespace what garbage collection leaves alone. */
export interface NamespaceContent {
  readonly images: readonly { readonly digest: string; readonly labels: Labels }[];
  /** Content by digest, with its labels. */
  readonly labels: ReadonlyMap<string, Labels>;
  readonly leases: readonly { readonly labels: Labels; readonly content: readonly string[] }[];
}

const REFERENCE_LABEL = 'containerd.io/gc.ref.content';
const ROOT_LABEL = 'containerd.io/gc.root';
const EXPIRY_LABEL = 'containerd.io/gc.expire';
const FLAT_LABEL = 'containerd.io/gc.flat';

/**
 * The content of a namespace that containerd's garbage collection leaves alone: what images,
 * unexpired leases and root labels point at, and what that refers to by its labels. A flat lease
 * holds what it lists and nothing else.
 *
 * Content that only a snapshot's labels refer to is not seen here, and is rare.
 *
 * @param nowMs milliseconds since the epoch, against which expiries are held
 */
export function keptContent(namespace: NamespaceContent, nowMs: number): Set<string> {
  const { images, labels, leases } = namespace;
  const kept = new Set<string>();
  const pending: string[] = [];
  const keep = (digest: string): void => {
    if (kept.has(digest)) return;
    kept.add(digest);
    pending.push(digest);
  };
  for (const image of images) {
    if (isExpired(image.labels, nowMs)) continue;
    keep(image.digest);
    references(image.labels).forEach(keep);
  }
  for (const [digest, own] of labels) if (Object.hasOwn(own, ROOT_LABEL)) keep(digest);
  const live = leases.filter((lease) => !isExpired(lease.labels, nowMs));
  const isFlat = (lease: { readonly labels: Labels }): boolean =>
    Object.hasOwn(lease.labels, FLAT_LABEL);
  for (const lease of live) if (!isFlat(lease)) lease.content.forEach(keep);
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    references(labels.get(next) ?? {}).forEach(keep);
  }
  // Last, so that what one of these refers to is not followed.
  for (const lease of live) if (isFlat(lease)) for (const digest of lease.content) kept.add(digest);
  return kept;
}

/** "….content", "….content.l.0" and "….content/x" refer; "….contents" does not. */
function references(labels: Labels): string[] {
  return Object.entries(labels)
    .filter(([key]) => {
      const next = key[REFERENCE_LABEL.length];
      return key.startsWith(REFERENCE_LABEL) && (next === undefined || './'.includes(next));
    })
    .map(([, digest]) => digest);
}

/** An expiry that cannot be read is none: containerd takes it so. */
function isExpired(labels: Labels, nowMs: number): boolean {
  const text = labels[EXPIRY_LABEL];
  return text !== undefined && Date.parse(text) < nowMs;
}
