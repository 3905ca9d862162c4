import type { Config } from '../config/schema.ts';
import { seenAt } from '../node/doctor/host-root.ts';

/** A configuration of the node, with everything that it names where the doctor sees it. */
export async function configSeenFrom(config: Config, hostRoot: string): Promise<Config> {
  const { agent, node, registry, tls } = config;
  const seen = async (path: string): Promise<string> => seenAt(path, hostRoot);
  const { containerd, directory } = agent.store;
  return {
    ...config,
    node: { ...node, stateDirectory: await seen(node.stateDirectory) },
    registry: { ...registry, agentSocket: await seen(registry.agentSocket) },
    agent: {
      ...agent,
      socket: await seen(agent.socket),
      store: {
        ...agent.store,
        containerd: {
          ...containerd,
          socket: await seen(containerd.socket),
          contentPath: await seen(containerd.contentPath),
        },
        directory: { ...directory, path: await seen(directory.path) },
      },
    },
    tls: {
      ...tls,
      ca: await seen(tls.ca),
      certificate: await seen(tls.certificate),
      key: await seen(tls.key),
    },
  };
}
