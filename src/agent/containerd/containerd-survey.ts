import { create } from '@bufbuild/protobuf';

import type { NodeWarning } from '../../rpc/inventory.ts';
import type { Image } from '../../rpc/gen/containerd/services/images/v1/images_pb.ts';
import {
  Introspection,
  PluginsRequestSchema,
  type Plugin,
} from '../../rpc/gen/containerd/services/introspection/v1/introspection_pb.ts';
import {
  ListNamespacesRequestSchema,
  Namespaces,
} from '../../rpc/gen/containerd/services/namespaces/v1/namespace_pb.ts';
import { methodDefinition } from '../../rpc/service-definition.ts';
import type { StoreSurvey, SurveyedImage } from '../inventory/survey.ts';
import { LAZY_SNAPSHOTTERS } from '../keeper/lazy-snapshotter.ts';
import { StoreUnavailableError, type StoreCallOptions } from '../store.ts';
import { ContainerdClient } from './containerd-client.ts';
import type { ContainerdConnection } from './containerd-connection.ts';
import { ContainerdLeases } from './containerd-leases.ts';
import { recordTimeMs } from './image-record.ts';
import { keptContent, type NamespaceContent } from './retention.ts';

const methods = {
  plugins: methodDefinition(Introspection.method.plugins),
  namespaces: methodDefinition(Namespaces.method.list),
};
const SNAPSHOT_LABEL = 'containerd.io/gc.ref.snapshot.';
const KUBERNETES_NAMESPACE = 'k8s.io';
const DOCKER_NAMESPACE = 'moby';
/** Of other namespaces, how many are looked into for what they keep. */
const MAX_OTHER_NAMESPACES = 16;
const LEASES_AT_A_TIME = 8;

/**
 * What containerd knows of its content beside the bytes: every image record, what garbage
 * collection would leave, and what about this containerd keeps images from being served.
 */
export class ContainerdSurvey {
  readonly #connection: ContainerdConnection;
  readonly #client: ContainerdClient;
  readonly #now: () => number;

  constructor(
    connection: ContainerdConnection,
    dependencies: { readonly now?: () => number } = {},
  ) {
    this.#connection = connection;
    this.#client = new ContainerdClient(connection);
    this.#now = dependencies.now ?? Date.now;
  }

  /** @throws StoreUnavailableError, or the reason of the signal */
  async take(options: StoreCallOptions): Promise<StoreSurvey> {
    const images = await this.#client.images(options);
    const own = await this.#content(this.#connection, images, options);
    const nowMs = this.#now();
    const kept = keptContent(own, nowMs);
    const namespaces = await this.#namespaces(options);
    for (const namespace of namespaces.slice(0, MAX_OTHER_NAMESPACES)) {
      // A file stays for as long as one namespace keeps it.
      for (const digest of await this.#keptBy(namespace, options)) kept.add(digest);
    }
    const containers = (await attempt(this.#client.containers(options), options)) ?? [];
    const plugins = await attempt(this.#plugins(options), options);
    const snapshotter =
      mostFrequent(containers.map((container) => container.snapshotter)) ??
      mostFrequent([...own.labels.values()].flatMap(snapshottersOf)) ??
      '';
    return {
      images: images.map(surveyed),
      usedImages: new Set(containers.map(({ image }) => image)),
      kept,
      labels: own.labels,
      runtimeVersion: (await attempt(this.#client.version(options), options)) ?? '',
      snapshotter,
      warnings: warningsOf({
        namespace: this.#connection.namespace,
        namespaces,
        plugins,
        hasImages: images.length > 0,
      }),
    };
  }

  async #content(
    connection: ContainerdConnection,
    images: readonly Image[],
    options: StoreCallOptions,
  ): Promise<NamespaceContent> {
    const labels = new Map<string, Record<string, string>>();
    for await (const info of new ContainerdClient(connection).content(options)) {
      labels.set(info.digest, info.labels);
    }
    const leases = new ContainerdLeases(connection);
    const held: { labels: Record<string, string>; content: string[] }[] = [];
    const waiting = (await leases.list(options)).values();
    const work = async (): Promise<void> => {
      for (const lease of waiting) {
        const resources = (await leases.listResources(lease.id, options)) ?? [];
        const content = resources.filter(({ type }) => type === 'content').map(({ id }) => id);
        held.push({ labels: lease.labels, content });
      }
    };
    await Promise.all(Array.from({ length: LEASES_AT_A_TIME }, work));
    return {
      images: images.map((image) => ({
        digest: image.target?.digest ?? '',
        labels: image.labels,
      })),
      labels,
      leases: held,
    };
  }

  async #keptBy(namespace: string, options: StoreCallOptions): Promise<Set<string>> {
    const connection = this.#connection.inNamespace(namespace);
    try {
      const images = await new ContainerdClient(connection).images(options);
      return keptContent(await this.#content(connection, images, options), this.#now());
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error;
      return new Set();
    }
  }

  /** Those beside this one. */
  async #namespaces(options: StoreCallOptions): Promise<string[]> {
    const answer = await attempt(
      this.#connection.unary(methods.namespaces, create(ListNamespacesRequestSchema), {
        ...options,
        action: 'Cannot list the namespaces of containerd',
      }),
      options,
    );
    const names = (answer?.namespaces ?? []).map(({ name }) => name);
    return names.filter((name) => name !== this.#connection.namespace);
  }

  async #plugins(options: StoreCallOptions): Promise<Plugin[]> {
    const answer = await this.#connection.unary(methods.plugins, create(PluginsRequestSchema), {
      ...options,
      action: 'Cannot list the plugins of containerd',
    });
    return answer?.plugins ?? [];
  }
}

/** What is worth knowing, but not worth failing for. */
async function attempt<T>(call: Promise<T>, { signal }: StoreCallOptions): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof StoreUnavailableError) return undefined;
    throw error;
  }
}

function surveyed(image: Image): SurveyedImage {
  const { digest = '', mediaType = '', size = 0n } = image.target ?? {};
  return {
    name: image.name,
    target: { digest, mediaType, sizeBytes: Number(size) },
    recordedAtMs: recordTimeMs(image),
  };
}

function snapshottersOf(labels: Readonly<Record<string, string>>): string[] {
  return Object.keys(labels)
    .filter((key) => key.startsWith(SNAPSHOT_LABEL))
    .map((key) => key.slice(SNAPSHOT_LABEL.length));
}

function mostFrequent(words: readonly string[]): string | undefined {
  const counts = new Map<string, number>();
  for (const word of words) if (word !== '') counts.set(word, (counts.get(word) ?? 0) + 1);
  let found: string | undefined;
  for (const [word, count] of counts) if (count > (counts.get(found ?? '') ?? 0)) found = word;
  return found;
}

/** What about a containerd keeps its images from being served. */
export function warningsOf(facts: {
  readonly namespace: string;
  readonly namespaces: readonly string[];
  /** Undefined when containerd does not tell. */
  readonly plugins: readonly Plugin[] | undefined;
  readonly hasImages: boolean;
}): NodeWarning[] {
  const { namespace, namespaces, plugins, hasImages } = facts;
  if (plugins === undefined) {
    const message = 'containerd does not tell which plugins it runs';
    return [{ code: 'plugins_unknown', message }];
  }
  const warnings: NodeWarning[] = [];
  const lazy = plugins.filter(
    ({ type, id, initErr }) =>
      type === 'io.containerd.snapshotter.v1' && LAZY_SNAPSHOTTERS.has(id) && initErr === undefined,
  );
  for (const { id } of lazy) {
    const message = `the snapshotter ${id} mounts images without fetching their layers, which this node then cannot give`;
    warnings.push({ code: 'lazy_snapshotter', message });
  }
  const content = plugins.find(({ type }) => type === 'io.containerd.content.v1');
  if (content?.initErr !== undefined) {
    const message = `the content plugin does not run: ${content.initErr.message}`;
    warnings.push({ code: 'content_plugin', message });
  }
  const cri = plugins.find(({ type, id }) => type === 'io.containerd.grpc.v1' && id === 'cri');
  if (namespace === KUBERNETES_NAMESPACE && (cri === undefined || cri.initErr !== undefined)) {
    const why = cri?.initErr === undefined ? 'is disabled' : `does not run: ${cri.initErr.message}`;
    warnings.push({
      code: 'cri_plugin',
      message: `the CRI plugin ${why}, so that no Pod is started by this containerd`,
    });
  }
  if (namespaces.includes(DOCKER_NAMESPACE) && !hasImages) {
    const message =
      "this containerd belongs to a Docker engine, which keeps images in a store of its own; the namespace '" +
      `${namespace}' has none`;
    warnings.push({ code: 'docker_store', message });
  }
  return warnings;
}
