import { access, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { API_CALLS } from '../kubernetes/api-calls.ts';
import { inClusterAccess } from '../kubernetes/cluster-access.ts';
import { KubeApi } from '../kubernetes/kube-api.ts';
import { podsOnNodes } from '../kubernetes/pods-on-nodes.ts';
import { HostsLock, LOCK_FILES } from '../node/hosts/hosts-lock.ts';
import { waitingClock } from './waiting-clock.ts';

const CALL_TIMEOUT_MS = 10_000;
/** A `salvor hosts` has its lock while it writes, which takes milliseconds. */
const LOCK_WAIT_MS = 30_000;

interface Output {
  readonly writeOut: (text: string) => void;
}

/** What `salvor uninstall await` takes. */
export interface AwaitOptions {
  /** Of the DaemonSet and the Secrets. */
  readonly namespace: string;
  /** Its pods restore the nodes. */
  readonly daemonSet: string;
  readonly timeoutMs: number;
  /** Secrets to delete when all nodes are done. */
  readonly secrets: readonly string[];
  readonly signal: AbortSignal;
}

/**
 * `salvor uninstall await`: waits until every node is restored, then deletes what was issued.
 *
 * @throws when a node is not done in time, naming it; nothing is deleted then
 */
export async function runUninstallAwait(options: AwaitOptions, output: Output): Promise<void> {
  const { namespace, secrets, signal } = options;
  const api = new KubeApi(
    { timeoutMs: CALL_TIMEOUT_MS },
    { connect: inClusterAccess, calls: API_CALLS.uninstall },
  );
  const { gone, ready } = await podsOnNodes(options, { api, clock: waitingClock });
  output.writeOut(`${ready.length} nodes are restored\n`);
  if (gone.length > 0) {
    output.writeOut(
      `Left out, as they take no pods up: ${gone.join(', ')}. Their hosts.toml files still name ` +
        'Salvor, which costs nothing but a refused connection; `salvor hosts restore` on the node ' +
        'puts them back.\n',
    );
  }
  for (const name of secrets) await api.delete('secrets', { namespace, name, signal });
  if (secrets.length > 0) output.writeOut(`Deleted the Secrets ${secrets.join(', ')}\n`);
}

/**
 * `salvor uninstall state`: deletes what is in a directory, which itself may be a mount point.
 *
 * @throws when something in it cannot be deleted, or a `salvor hosts` works with it for too long
 */
export async function runUninstallState(
  directory: string,
  options: { readonly signal: AbortSignal },
  output: Output & { readonly writeError: (text: string) => void },
): Promise<void> {
  await access(directory);
  const lock = { directory, what: 'salvor uninstall state', waitMs: LOCK_WAIT_MS, ...options };
  const onWait = (holder: string): void => output.writeError(`waiting for ${holder}\n`);
  await using _held = await HostsLock.acquire(lock, { clock: waitingClock, onWait });
  const names = (await readdir(directory)).filter((name) => !LOCK_FILES.includes(name));
  for (const name of names) await rm(join(directory, name), { recursive: true });
  output.writeOut(`Deleted ${names.length} files or directories in ${directory}\n`);
}

/** `salvor uninstall hold`: nothing, until the signal; a pod that runs says that it is done. */
export async function runUninstallHold(signal: AbortSignal, output: Output): Promise<void> {
  // Something must keep the process alive meanwhile.
  const hour = setInterval(() => undefined, 3_600_000);
  output.writeOut('Nothing is left to do on this node\n');
  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
    if (signal.aborted) resolve();
  });
  clearInterval(hour);
}
