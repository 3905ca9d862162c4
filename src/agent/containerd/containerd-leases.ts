import { status } from '@grpc/grpc-js';
import { create } from '@bufbuild/protobuf';

import {
  AddResourceRequestSchema,
  CreateRequestSchema,
  DeleteRequestSchema,
  DeleteResourceRequestSchema,
  Leases,
  ListRequestSchema,
  ListResourcesRequestSchema,
  type Lease,
  type Resource,
} from '../../rpc/gen/containerd/services/leases/v1/leases_pb.ts';
import { methodDefinition } from '../../rpc/service-definition.ts';
import type { StoreCallOptions } from '../store.ts';
import type { ContainerdConnection } from './containerd-connection.ts';
import type { ListOptions } from './containerd-client.ts';

/** How long a lease lives and what it holds. It cannot be changed later, only replaced. */
export interface LeaseTerms {
  /** Holds what it lists, and not what that refers to: no unpacked snapshots, for one. */
  readonly flat: boolean;
  /** Milliseconds since the epoch; containerd counts in seconds. Left out: for ever. */
  readonly expiresAtMs?: number;
  readonly labels?: Readonly<Record<string, string>>;
}

/** Something that a lease holds. */
export interface LeasedResource {
  /** "content", "ingests" or "snapshots/<snapshotter>". */
  readonly type: string;
  /** A digest, a ref or a key. */
  readonly id: string;
}

const flatLabel = 'containerd.io/gc.flat';
const expiryLabel = 'containerd.io/gc.expire';
/** Garbage collection of a full node takes its time. */
const syncTimeoutMs = 60_000;
const methods = {
  create: methodDefinition(Leases.method.create),
  delete: methodDefinition(Leases.method.delete),
  list: methodDefinition(Leases.method.list),
  addResource: methodDefinition(Leases.method.addResource),
  deleteResource: methodDefinition(Leases.method.deleteResource),
  listResources: methodDefinition(Leases.method.listResources),
};

/**
 * The leases of one of containerd's namespaces: what they hold, garbage collection leaves alone.
 *
 * What containerd does not find becomes undefined or false. Every other failure is a
 * StoreUnavailableError, except that a caller's own abort keeps its reason.
 */
export class ContainerdLeases {
  readonly #connection: ContainerdConnection;

  constructor(connection: ContainerdConnection) {
    this.#connection = connection;
  }

  /**
   * @param id chosen by the caller
   * @returns false when there is one of that id; its terms stay as they are
   */
  async create(id: string, terms: LeaseTerms, options: StoreCallOptions = {}): Promise<boolean> {
    const { flat, expiresAtMs, labels: more = {} } = terms;
    const labels: Record<string, string> = { ...more };
    if (flat) labels[flatLabel] = new Date().toISOString();
    if (expiresAtMs !== undefined) labels[expiryLabel] = new Date(expiresAtMs).toISOString();
    const request = create(CreateRequestSchema, { id, labels });
    const answer = await this.#connection.unary(methods.create, request, {
      ...options,
      action: `Cannot create the lease ${id}`,
      missing: [status.ALREADY_EXISTS],
    });
    return answer !== undefined;
  }

  /**
   * Lets go of what a lease holds.
   *
   * @param options.sync waits until garbage collection has run
   * @returns whether there was such a lease
   */
  async delete(
    id: string,
    { sync = false, ...options }: StoreCallOptions & { readonly sync?: boolean } = {},
  ): Promise<boolean> {
    const request = create(DeleteRequestSchema, { id, sync });
    const answer = await this.#connection.unary(methods.delete, request, {
      ...options,
      ...(sync ? { timeoutMs: syncTimeoutMs } : {}),
      action: `Cannot delete the lease ${id}`,
      missing: [status.NOT_FOUND],
    });
    return answer !== undefined;
  }

  /** Every lease, or those that a filter such as `labels."salvor.dev/kept"` names. */
  async list({ filters = [], ...options }: ListOptions = {}): Promise<Lease[]> {
    const request = create(ListRequestSchema, { filters: [...filters] });
    const answer = await this.#connection.unary(methods.list, request, {
      ...options,
      timeoutMs: this.#connection.listTimeoutMs,
      action: 'Cannot list the leases of containerd',
    });
    return answer?.leases ?? [];
  }

  /**
   * Holds something more, whether it exists yet or not. Harmless when it is held already.
   *
   * @returns whether there is such a lease
   */
  async addResource(
    id: string,
    resource: LeasedResource,
    options: StoreCallOptions = {},
  ): Promise<boolean> {
    const request = create(AddResourceRequestSchema, { id, resource });
    const answer = await this.#connection.unary(methods.addResource, request, {
      ...options,
      action: `Cannot hold ${resource.id} by the lease ${id}`,
      missing: [status.NOT_FOUND],
    });
    return answer !== undefined;
  }

  /** Lets go of one thing. @returns whether there is such a lease */
  async deleteResource(
    id: string,
    resource: LeasedResource,
    options: StoreCallOptions = {},
  ): Promise<boolean> {
    const request = create(DeleteResourceRequestSchema, { id, resource });
    const answer = await this.#connection.unary(methods.deleteResource, request, {
      ...options,
      action: `Cannot let go of ${resource.id} by the lease ${id}`,
      missing: [status.NOT_FOUND],
    });
    return answer !== undefined;
  }

  /** What a lease holds. @returns undefined when there is no such lease */
  async listResources(id: string, options: StoreCallOptions = {}): Promise<Resource[] | undefined> {
    const request = create(ListResourcesRequestSchema, { id });
    const answer = await this.#connection.unary(methods.listResources, request, {
      ...options,
      timeoutMs: this.#connection.listTimeoutMs,
      action: `Cannot list what the lease ${id} holds`,
      missing: [status.NOT_FOUND],
    });
    return answer?.resources;
  }
}
