/** Something that a label refers to, as a lease names it. */
export interface LabelTarget {
  /** "content" or "snapshots/<snapshotter>". */
  readonly type: string;
  readonly id: string;
}

/** What garbage collection spares because of a blob's labels. */
export function targetsOf(labels: Readonly<Record<string, string>>): LabelTarget[] {
  return Object.entries(labels).flatMap(([key, id]): LabelTarget[] => {
    // Numbered and named ones: "containerd.io/gc.ref.content.l.0", "…/gc.ref.snapshot.overlayfs".
    const [, kind, name] = /^containerd\.io\/gc\.ref\.(content|snapshot)\.?(.*)$/.exec(key) ?? [];
    if (kind === 'content') return [{ type: 'content', id }];
    if (kind === 'snapshot' && name !== undefined) {
      return [{ type: `snapshots/${name.split('/')[0]}`, id }];
    }
    return [];
  });
}
