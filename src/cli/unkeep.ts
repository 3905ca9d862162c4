import { ContainerdClient } from '../agent/containerd/containerd-client.ts';
import { ContainerdConnection } from '../agent/containerd/containerd-connection.ts';
import { ContainerdEditor } from '../agent/containerd/containerd-editor.ts';
import { ContainerdLeases } from '../agent/containerd/containerd-leases.ts';
import { listGuardLeases, removeGuardLeases } from '../agent/keeper/guard-lease.ts';
import { unkeep } from '../agent/keeper/unkeep.ts';
import type { Config } from '../config/schema.ts';

/**
 * `salvor node unkeep`: takes the keeper's labels away again, and lets go of last copies. It
 * asks containerd itself, so it needs to be run on the node.
 *
 * @param options.dryRun only tells
 * @throws when containerd cannot be asked
 */
export async function runUnkeep(
  config: Pick<Config, 'agent'>,
  options: { readonly dryRun: boolean; readonly signal: AbortSignal },
  dependencies: { readonly writeOut: (text: string) => void },
): Promise<void> {
  const { dryRun } = options;
  const { socket: socketPath, namespace } = config.agent.store.containerd;
  const connection = new ContainerdConnection({ socketPath, namespace });
  let blobs = 0;
  let labels = 0;
  let copies = 0;
  try {
    const leases = new ContainerdLeases(connection);
    const parts = {
      client: new ContainerdClient(connection),
      editor: new ContainerdEditor(connection),
      leases,
    };
    const verb = dryRun ? 'would remove' : 'removed';
    for await (const unkept of unkeep(options, parts)) {
      blobs += 1;
      labels += unkept.labels.length;
      dependencies.writeOut(`${unkept.digest}: ${verb} ${unkept.labels.join(' ')}\n`);
    }
    const limits = { signal: options.signal };
    copies = dryRun
      ? (await listGuardLeases(leases, limits)).length
      : await removeGuardLeases(leases, limits);
  } finally {
    connection.close();
  }
  const where = `in the namespace ${namespace}`;
  const done = `${where} ${dryRun ? 'would be ' : ''}removed\n`;
  if (blobs > 0) dependencies.writeOut(`${labels} labels of ${blobs} manifests ${done}`);
  if (copies > 0) dependencies.writeOut(`${copies} leases of last copies ${done}`);
  if (blobs + copies === 0) dependencies.writeOut(`Nothing is kept ${where}\n`);
}
