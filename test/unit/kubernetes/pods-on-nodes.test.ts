import { expect, test } from 'vitest';
import { API_CALLS } from '../../../src/kubernetes/api-calls.ts';
import { KubeApi } from '../../../src/kubernetes/kube-api.ts';
import { podsOnNodes, type PodsOnNodes } from '../../../src/kubernetes/pods-on-nodes.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeKubeApi, sendStatus } from '../../support/fake-kube-api.ts';
import { suiteScope } from '../../support/test-scope.ts';

const scope = suiteScope('pods-on-nodes');
const START_MS = Date.UTC(2026, 0, 1);
const labels = { app: 'salvor', part: 'uninstall' };

interface PodState {
  readonly node?: string;
  readonly isReady?: boolean;
  readonly isTakenUp?: boolean;
  readonly initContainers?: readonly object[];
}

async function scene() {
  const server = await FakeKubeApi.start(scope());
  const clock = new FakeClock(START_MS);
  const access = { url: new URL(server.url), namespace: 'ns', requestOptions: async () => ({}) };
  const api = new KubeApi(
    { timeoutMs: 2000 },
    { connect: async () => access, calls: API_CALLS.uninstall },
  );
  const daemonSet = (desired: number, observedGeneration = 1): void => {
    server.put('daemonsets', {
      metadata: { name: 'restore', namespace: 'ns', generation: 1 } as never,
      spec: { selector: { matchLabels: labels } },
      status: { observedGeneration, desiredNumberScheduled: desired },
    });
  };
  const pod = (name: string, state: PodState): void => {
    const { node, isReady = false, isTakenUp = true, initContainers = [] } = state;
    const created = new Date(START_MS).toISOString();
    server.put('pods', {
      metadata: { name, namespace: 'ns', labels, creationTimestamp: created } as never,
      spec: node === undefined ? {} : { nodeName: node },
      status: {
        ...(isTakenUp && node !== undefined ? { startTime: created } : {}),
        conditions: [{ type: 'Ready', status: isReady ? 'True' : 'False' }],
        initContainerStatuses: initContainers,
      },
    });
  };
  const controller = new AbortController();
  const wait = (): Promise<PodsOnNodes> =>
    podsOnNodes(
      { namespace: 'ns', daemonSet: 'restore', timeoutMs: 600_000, signal: controller.signal },
      { api, clock },
    );
  /** Once it has looked: changes something, and lets it look again. */
  const next = async (ms = 2000, change = (): void => undefined): Promise<void> => {
    await clock.untilSleeping();
    change();
    clock.advance(ms);
  };
  return { server, clock, daemonSet, pod, wait, next, controller };
}

test('podsOnNodes ends when every node has a ready pod, not before all are there', async () => {
  const { daemonSet, pod, wait, next } = await scene();
  daemonSet(0, 0);
  const waited = wait();
  await next(2000, () => {
    daemonSet(2);
    pod('a', { node: 'node-a', isReady: true });
  });
  await next(2000, () => pod('b', { node: 'node-b' }));
  await next(2000, () => pod('b', { node: 'node-b', isReady: true }));
  expect(await waited).toMatchObject({ ready: ['node-a', 'node-b'], gone: [] });
});

test('podsOnNodes leaves out a node whose kubelet has not taken the pod up for a minute', async () => {
  const { daemonSet, pod, wait, next } = await scene();
  daemonSet(2);
  pod('a', { node: 'node-a', isReady: true });
  pod('b', { node: 'node-b', isTakenUp: false });
  const waited = wait();
  await next(30_000);
  await next(31_000);
  expect(await waited).toMatchObject({ ready: ['node-a'], gone: ['node-b'] });
});

test('podsOnNodes says which nodes are not done in time, and why', async () => {
  const { daemonSet, pod, wait, next } = await scene();
  daemonSet(3);
  pod('a', { node: 'node-a', isReady: true });
  const failed = { name: 'hosts', state: { terminated: { exitCode: 1 } } };
  const unpulled = { name: 'hosts', state: { waiting: { reason: 'ErrImagePull' } } };
  pod('b', { node: 'node-b', initContainers: [failed] });
  pod('c', { node: 'node-c', initContainers: [unpulled] });
  pod('d', {});
  const waited = wait();
  await next(600_000);
  await expect(waited).rejects.toThrow(
    'Cannot wait any longer for the pods of restore: node-b (hosts ended with 1), ' +
      'node-c (hosts: ErrImagePull), the node of d (no room for it)',
  );
});

test('podsOnNodes goes on when the API server fails for a while', async () => {
  const { server, daemonSet, pod, wait, next } = await scene();
  daemonSet(1);
  pod('a', { node: 'node-a', isReady: true });
  server.failNext.push((response) => sendStatus(response, 503, 'ServiceUnavailable'));
  const waited = wait();
  await next();
  expect(await waited).toMatchObject({ ready: ['node-a'] });
});

test('podsOnNodes fails at once where there is no such DaemonSet, and when it is told to', async () => {
  const { daemonSet, wait, clock, controller } = await scene();
  await expect(wait()).rejects.toThrow('Cannot find the DaemonSet ns/restore');
  daemonSet(1);
  const waited = wait();
  await clock.untilSleeping();
  controller.abort(new Error('stopped'));
  await expect(waited).rejects.toThrow('stopped');
});
