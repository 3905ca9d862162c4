import type { GuardLeasesDependencies } from '../../../../src/agent/keeper/guard-lease.ts';
import type { Digest } from '../../../../src/oci/digest.ts';

interface FakeLease {
  readonly id: string;
  readonly labels: Record<string, string>;
  readonly resources: { type: string; id: string }[];
}

/** containerd's leases and content, as far as guards need them, with a record of every call. */
export class FakeLeases {
  readonly leases = new Map<string, FakeLease>();
  /** Blobs that an image record refers to. */
  readonly recorded = new Map<Digest, number>();
  /** Blobs on the disk. */
  readonly disk = new Map<Digest, number>();
  readonly calls: string[] = [];
  /** Makes the next call of that kind fail. */
  failing: string | undefined;
  /** Called before each call, to let something happen in between. */
  onCall: ((call: string) => void) | undefined;

  /** Puts a blob on the disk and under an image record. */
  put(digest: Digest, sizeBytes: number): void {
    this.recorded.set(digest, sizeBytes);
    this.disk.set(digest, sizeBytes);
  }

  /** Garbage collection. */
  collect(): void {
    const held = new Set([...this.leases.values()].flatMap((lease) => lease.resources));
    const heldIds = new Set([...held].map(({ id }) => id));
    for (const digest of this.disk.keys()) {
      if (!this.recorded.has(digest) && !heldIds.has(digest)) this.disk.delete(digest);
    }
  }

  get heldIds(): string[] {
    return [...this.leases.keys()];
  }

  readonly port: GuardLeasesDependencies['leases'] = {
    create: async (id, { flat, expiresAtMs, labels }) => {
      this.#note(`create ${id}`);
      if (this.leases.has(id)) return false;
      const expiry = new Date(expiresAtMs ?? 0).toISOString();
      const all = { ...labels, 'containerd.io/gc.expire': expiry };
      this.leases.set(id, {
        id,
        labels: { ...all, ...(flat && { 'containerd.io/gc.flat': 'yes' }) },
        resources: [],
      });
      return true;
    },
    delete: async (id, options) => {
      this.#note(`delete ${id}${options?.sync === true ? ' sync' : ''}`);
      const existed = this.leases.delete(id);
      this.collect();
      return existed;
    },
    list: async () => {
      this.#note('list');
      return [...this.leases.values()].map(({ id, labels }) => ({ id, labels })) as never;
    },
    addResource: async (id, resource) => {
      this.#note(`add ${id}`);
      const lease = this.leases.get(id);
      lease?.resources.push({ ...resource });
      return lease !== undefined;
    },
    listResources: async (id) => {
      this.#note(`resources ${id}`);
      return this.leases.get(id)?.resources as never;
    },
  };

  readonly sizeOf = async (digest: Digest): Promise<number | undefined> => this.disk.get(digest);

  #note(call: string): void {
    this.calls.push(call);
    this.onCall?.(call);
    if (this.failing === undefined || !call.startsWith(this.failing)) return;
    this.failing = undefined;
    throw new Error(`Cannot ${call}: containerd is away`);
  }
}
