import { readHostsFile } from '../config/hosts-file.ts';
import type { Config, EndpointConfig } from '../config/schema.ts';
import { seenAt } from '../node/doctor/host-root.ts';

/** How what `salvor hosts` found of upstreams is read, where it is on the node. */
export function hostsSeenFrom(hostRoot: string): typeof readHostsFile {
  return async (path) => readHostsFile(await seenAt(path, hostRoot));
}

/** What may be said of a URL that is asked, as far as it is in files. */
type Files = Pick<EndpointConfig, 'ca' | 'clientCertificate' | 'clientKey' | 'headersFile'>;

/** A configuration of the node, with everything that it names where the doctor sees it. */
export async function configSeenFrom(config: Config, hostRoot: string): Promise<Config> {
  const { agent, node, registry, tls } = config;
  const seen = async (path: string): Promise<string> => seenAt(path, hostRoot);
  const { containerd, directory } = agent.store;
  const place = async <T extends Files>(each: T): Promise<T> => ({
    ...each,
    ca: await seen(each.ca),
    clientCertificate: await seen(each.clientCertificate),
    clientKey: await seen(each.clientKey),
    headersFile: await seen(each.headersFile),
  });
  const upstreams = Object.entries(registry.upstreams).map(async ([name, upstream]) => {
    const endpoints = await Promise.all(upstream.endpoints.map(place));
    return [name, { ...(await place(upstream)), endpoints }] as const;
  });
  return {
    ...config,
    node: { ...node, stateDirectory: await seen(node.stateDirectory) },
    registry: {
      ...registry,
      agentSocket: await seen(registry.agentSocket),
      mirrors: await Promise.all(registry.mirrors.map(place)),
      upstreams: Object.fromEntries(await Promise.all(upstreams)),
    },
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
