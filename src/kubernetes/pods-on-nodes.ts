import type { Clock } from '../telemetry/clock.ts';
import type { KubeApi, KubeObject } from './kube-api.ts';
import { KubeError } from './kube-error.ts';

/** Between two looks, milliseconds. */
const LOOK_MS = 2000;
/** How long a kubelet may take to take up a pod before its node counts as gone, milliseconds. */
const SILENT_KUBELET_MS = 60_000;
/** How many nodes a message names. */
const MAX_NAMED = 10;

interface DaemonSet extends KubeObject {
  readonly metadata?: KubeObject['metadata'] & { readonly generation?: number };
  readonly spec?: { readonly selector?: { readonly matchLabels?: Record<string, string> } };
  readonly status?: {
    readonly observedGeneration?: number;
    readonly desiredNumberScheduled?: number;
  };
}

interface ContainerStatus {
  readonly name: string;
  readonly state?: {
    readonly waiting?: { readonly reason?: string };
    readonly terminated?: { readonly exitCode?: number; readonly reason?: string };
  };
}

interface Pod extends KubeObject {
  readonly metadata?: KubeObject['metadata'] & { readonly creationTimestamp?: string };
  readonly spec?: { readonly nodeName?: string };
  readonly status?: {
    /** Set by the kubelet when it takes the pod up. */
    readonly startTime?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
    readonly initContainerStatuses?: readonly ContainerStatus[];
  };
}

/** How far the pods of a DaemonSet are. */
interface Progress {
  /** Nodes, by name, whose pod is ready. */
  readonly ready: readonly string[];
  /** Nodes whose kubelet does not take pods up: switched off, or cut off. */
  readonly gone: readonly string[];
  /** All the others, with what holds them up where that can be told. */
  readonly waiting: readonly string[];
}

/** Nodes on which the pod is ready, and those that are not there. */
export type PodsOnNodes = Pick<Progress, 'ready' | 'gone'>;

/**
 * Waits until a DaemonSet has a ready pod on each of its nodes. A node whose kubelet has not taken
 * its pod up for a minute is left out: nothing can be done on it, and nothing is running on it.
 * Calls that fail are made again until the time is over.
 *
 * @param options.timeoutMs for all of it
 * @throws when the time is over, naming the nodes that are not done and why; when there is no such
 *   DaemonSet; when the signal aborts
 */
export async function podsOnNodes(
  options: {
    readonly namespace: string;
    readonly daemonSet: string;
    readonly timeoutMs: number;
    readonly signal: AbortSignal;
  },
  dependencies: { api: Pick<KubeApi, 'get' | 'list'>; clock: Clock },
): Promise<PodsOnNodes> {
  const { daemonSet, signal } = options;
  const { clock } = dependencies;
  const endMs = clock.now() + options.timeoutMs;
  for (;;) {
    let held: string;
    try {
      const progress = await look(options, dependencies);
      if (progress !== undefined && progress.waiting.length === 0) return progress;
      held = progress === undefined ? 'its pods are still being made' : named(progress.waiting);
    } catch (error) {
      if (!(error instanceof KubeError)) throw error;
      held = error.message;
    }
    if (clock.now() >= endMs) {
      throw new Error(`Cannot wait any longer for the pods of ${daemonSet}: ${held}`);
    }
    await clock.sleep(LOOK_MS, { signal });
  }
}

/** @returns undefined while it is not known how many pods there will be */
async function look(
  options: { readonly namespace: string; readonly daemonSet: string; readonly signal: AbortSignal },
  { api, clock }: { api: Pick<KubeApi, 'get' | 'list'>; clock: Clock },
): Promise<Progress | undefined> {
  const { daemonSet: name, namespace, signal } = options;
  const daemonSet = await api.get<DaemonSet>('daemonsets', { namespace, name, signal });
  if (daemonSet === undefined) throw new Error(`Cannot find the DaemonSet ${namespace}/${name}`);
  const { metadata, spec, status } = daemonSet;
  if ((status?.observedGeneration ?? 0) < (metadata?.generation ?? 1)) return undefined;
  const labels = Object.entries(spec?.selector?.matchLabels ?? {});
  const labelSelector = labels.map(([key, value]) => `${key}=${value}`).join(',');
  const { items } = await api.list<Pod>('pods', { namespace, labelSelector, signal });
  if (items.length < (status?.desiredNumberScheduled ?? 0)) return undefined;
  const isReady = (pod: Pod): boolean =>
    pod.status?.conditions?.some((each) => each.type === 'Ready' && each.status === 'True') ===
    true;
  const isGone = ({ metadata: { creationTimestamp = '' } = {}, spec, status }: Pod): boolean =>
    spec?.nodeName !== undefined &&
    status?.startTime === undefined &&
    clock.now() - Date.parse(creationTimestamp) > SILENT_KUBELET_MS;
  const rest = items.filter((pod) => !isReady(pod));
  return {
    ready: items.filter(isReady).map(nodeOf),
    gone: rest.filter(isGone).map(nodeOf),
    waiting: rest.filter((pod) => !isGone(pod)).map((pod) => `${nodeOf(pod)}${troubleOf(pod)}`),
  };
}

function nodeOf({ metadata, spec }: Pod): string {
  return spec?.nodeName ?? `the node of ${metadata?.name ?? 'a pod'} (no room for it)`;
}

function troubleOf({ status }: Pod): string {
  for (const { name, state } of status?.initContainerStatuses ?? []) {
    const { terminated, waiting } = state ?? {};
    if (terminated !== undefined && terminated.exitCode !== 0) {
      return ` (${name} ended with ${terminated.exitCode})`;
    }
    if (waiting?.reason !== undefined && waiting.reason !== 'PodInitializing') {
      return ` (${name}: ${waiting.reason})`;
    }
  }
  return '';
}

function named(nodes: readonly string[]): string {
  const more = nodes.length - MAX_NAMED;
  return `${nodes.slice(0, MAX_NAMED).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}
