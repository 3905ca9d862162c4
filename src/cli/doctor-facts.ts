import { randomBytes } from 'node:crypto';

import { ContainerdClient } from '../agent/containerd/containerd-client.ts';
import type { ContainerdConnection } from '../agent/containerd/containerd-connection.ts';
import { ContainerdStore } from '../agent/containerd/containerd-store.ts';
import { pullByCri } from '../agent/containerd/cri-pull.ts';
import { LAZY_SNAPSHOTTERS } from '../agent/keeper/lazy-snapshotter.ts';
import { StoredManifests } from '../agent/keeper/stored-manifests.ts';
import type { Config } from '../config/schema.ts';
import { gatherConfig, rootsOf } from '../node/doctor/config-facts.ts';
import type { Gathered } from '../node/doctor/diagnosis.ts';
import type { Facts } from '../node/doctor/facts.ts';
import { hasRoot, procSeenFrom } from '../node/doctor/host-root.ts';
import { isInShare } from '../node/hosts/node-share.ts';
import { gatherHosts } from '../node/doctor/hosts-facts.ts';
import { findSocketOwner, flagIn, type SocketOwner } from '../node/doctor/socket-owner.ts';
import { VERSION_HEADER } from '../oci/version-header.ts';
import { parseReference } from '../oci/reference.ts';
import { checkIdentity } from '../rpc/identity-facts.ts';
import { readIdentity } from '../rpc/identity.ts';
import { gatherReach, ownAgent } from './doctor-agents.ts';
import { gatherDisks } from './doctor-disks.ts';
import { gatherOwnImage } from './doctor-image.ts';
import { gatherUpstreams } from './doctor-upstreams.ts';

const CALL_MS = 5000;
const CANARY_MS = 40_000;
/** A registry that no name can be resolved to, RFC 6761: only mirrors for all registries are asked. */
const CANARY_REPOSITORY = 'canary.salvor.invalid/salvor-canary';
const DEFAULT_CONFIG = '/etc/containerd/config.toml';

export interface DoctorPlace {
  readonly config: Config;
  readonly mirrorUrl: string;
  readonly connection: ContainerdConnection;
  /** containerd's, as it is called on the node. */
  readonly nodeSocket: string;
  /** undefined: where the running containerd has it. */
  readonly containerdConfig: string | undefined;
  readonly containerdVersion: string | undefined;
  readonly hostRoot: string;
  /** Repository of the image that is pulled to see where pulls go. */
  readonly canary: string | undefined;
  readonly isCluster: boolean;
  readonly signal: AbortSignal;
}

const silentLog = { info: () => undefined, warn: () => undefined };

type Gatherers = {
  readonly [Name in keyof Facts]: () => Promise<Facts[Name] | undefined>;
};

/** Learns the facts with these names, all at once; what fails is told in its place. */
export async function gatherFacts(
  names: readonly (keyof Facts)[],
  place: DoctorPlace,
): Promise<Gathered> {
  const gatherers = gatherersFor(place);
  const entries = await Promise.all(
    names.map(async (name) => {
      try {
        const value = await gatherers[name]();
        return [name, value === undefined ? 'none' : { value }] as const;
      } catch (error) {
        place.signal.throwIfAborted();
        return [name, { failure: error instanceof Error ? error.message : String(error) }] as const;
      }
    }),
  );
  return Object.fromEntries(entries) as Gathered;
}

function gatherersFor(place: DoctorPlace): Gatherers {
  const { config, connection, mirrorUrl, signal } = place;
  const client = new ContainerdClient(connection);
  const once = <T>(make: () => Promise<T>): (() => Promise<T>) => {
    let made: Promise<T> | undefined;
    return () => (made ??= make());
  };
  const owner = once(async () => {
    const { hostRoot, nodeSocket } = place;
    return findSocketOwner(nodeSocket, { hostRoot, procRoot: await procSeenFrom(hostRoot) });
  });
  const configFile = once(async () => place.containerdConfig ?? (await configOf(owner)));
  const runtime = once(async (): Promise<Facts['runtime']> => {
    try {
      const version = await client.version({ signal });
      return { version: place.containerdVersion ?? version };
    } catch (error) {
      signal.throwIfAborted();
      return { failure: error instanceof Error ? error.message : String(error) };
    }
  });
  const version = async (): Promise<string | undefined> => {
    const found = await runtime();
    return 'version' in found ? found.version : place.containerdVersion;
  };
  const setup = once(async () => {
    const { hostRoot } = place;
    const path = await configFile();
    const lazySnapshotters = LAZY_SNAPSHOTTERS;
    const found = { path, version: await version(), hostRoot, lazySnapshotters };
    const process = await owner();
    const isOnNode = process !== undefined && (await hasRoot(process.pid, hostRoot));
    return gatherConfig({ ...found, isOnNode });
  });
  const isContainerd = config.agent.store.kind === 'containerd';
  const members = once(() => agentPage(config, signal));
  // Nothing is wrong with pulls that go past Salvor where they are meant to.
  const isWiringExpected = isInShare(config.node.name, config.node.wiredPercent);
  const whereWired = async <T>(gather: () => Promise<T>): Promise<T | undefined> =>
    isWiringExpected ? gather() : undefined;
  return {
    nowMs: async () => Date.now(),
    settings: async () => ({
      nodeName: config.node.name,
      mirrorUrl,
      isKeeperOff: config.agent.keeper.mode === 'off',
      isWiringExpected,
      wiredPercent: config.node.wiredPercent,
      policies: config.registry.policies,
      containerdConfig: await configFile(),
    }),
    runtime,
    config: setup,
    hosts: async () =>
      whereWired(async () =>
        gatherHosts(rootsOf(await setup()), {
          hostRoot: place.hostRoot,
          version: await version(),
        }),
      ),
    canary: () => whereWired(() => gatherCanary(place)),
    registry: () => askRegistry({ admin: config.registry.admin, mirrorUrl, signal }),
    agent: async () => ({ failure: await agentFailure(config, signal) }),
    members: async () => (await members()).members,
    pulls: () => whereWired(async () => (await members()).pulls),
    reach: () => gatherReach(config, place),
    identity: async () => (config.tls.mode === 'off' ? undefined : gatherIdentity(config.tls)),
    disks: () => gatherDisks(place, isContainerd ? client : undefined),
    upstreams: () => gatherUpstreams(config.registry, { signal }),
    proxy: async () => {
      const found = await owner();
      if (found === undefined) {
        throw new Error(
          "containerd's process is not to be seen from here: run it as root on the node itself, or " +
            "in a container with the node's processes and network, and its / as --host-root",
        );
      }
      return proxyOf(found);
    },
    ownImage: () => ownImageOf(place, client),
  };
}

async function ownImageOf(
  { config, connection, signal }: DoctorPlace,
  client: ContainerdClient,
): Promise<Facts['ownImage'] | undefined> {
  const { image } = config.node;
  const store = new ContainerdStore({}, { connection, log: silentLog });
  return gatherOwnImage(image === '' ? undefined : image, {
    client,
    signal,
    manifests: new StoredManifests({}, { store }),
  });
}

async function configOf(owner: () => Promise<SocketOwner | undefined>): Promise<string> {
  return flagIn((await owner())?.arguments ?? [], ['--config', '-c']) ?? DEFAULT_CONFIG;
}

function proxyOf({ environment }: SocketOwner): Facts['proxy'] {
  const first = (...names: string[]): string =>
    names.map((name) => environment[name]).find((value) => value !== undefined) ?? '';
  return {
    // The mirror speaks http, so that is the one that counts.
    url: first('HTTP_PROXY', 'http_proxy'),
    noProxy: first('NO_PROXY', 'no_proxy'),
  };
}

async function gatherCanary(place: DoctorPlace): Promise<Facts['canary']> {
  const { connection, signal } = place;
  const { admin } = place.config.registry;
  if (admin === '') throw new Error('registry.admin is empty, so the registry cannot be asked');
  const repository = place.canary || CANARY_REPOSITORY;
  const image = `${repository}:${randomBytes(8).toString('hex')}`;
  const reference = parseReference(image);
  if (!reference.ok) throw new Error(`${repository} is no repository: ${reference.reason}`);
  const { answer } = await pullByCri(connection, image, { timeoutMs: CANARY_MS, signal });
  const decisions = await askRegistryAbout(image, { admin, mirrorUrl: place.mirrorUrl, signal });
  return { image, isAsked: decisions.length > 0, answer };
}

/** @throws when nobody can say: the registry answers, but not on its admin port */
async function askRegistryAbout(
  image: string,
  where: { readonly admin: string; readonly mirrorUrl: string; readonly signal: AbortSignal },
): Promise<readonly unknown[]> {
  const { admin, mirrorUrl, signal } = where;
  const url = `http://${admin}/decisions?about=${encodeURIComponent(image)}`;
  const answer = await fetchPage(url, signal).catch(async (error: unknown) => {
    signal.throwIfAborted();
    if ('version' in (await askRegistry({ admin: '', mirrorUrl, signal }))) throw error;
    // It does not run, which another check says; nobody can have been asked then.
    return { decisions: [] };
  });
  return (answer as { decisions?: readonly unknown[] }).decisions ?? [];
}

/** @param where.admin not asked where it is empty */
async function askRegistry(where: {
  readonly admin: string;
  readonly mirrorUrl: string;
  readonly signal: AbortSignal;
}): Promise<Facts['registry']> {
  const { admin, mirrorUrl, signal } = where;
  try {
    const response = await fetch(new URL('/v2/', mirrorUrl), {
      redirect: 'manual',
      signal: AbortSignal.any([signal, AbortSignal.timeout(CALL_MS)]),
    });
    await response.body?.cancel();
    const version = response.headers.get(VERSION_HEADER);
    if (response.status === 200 && version !== null) {
      return { version, adminFailure: admin === '' ? '' : await adminFailure(admin, signal) };
    }
    return { failure: `status ${response.status}, not Salvor's`, isForeign: true };
  } catch (error) {
    signal.throwIfAborted();
    const { cause, message } = error as Error & { cause?: { code?: string } };
    return { failure: cause?.code ?? message, isForeign: false };
  }
}

async function adminFailure(admin: string, signal: AbortSignal): Promise<string> {
  return fetchPage(`http://${admin}/status`, signal).then(
    () => '',
    (error: unknown) => {
      signal.throwIfAborted();
      return error instanceof Error ? error.message : String(error);
    },
  );
}

async function agentFailure(config: Config, signal: AbortSignal): Promise<string> {
  const agent = ownAgent(config);
  try {
    await agent.reach([config.node.name], { timeoutMs: CALL_MS, signal });
    return '';
  } catch (error) {
    signal.throwIfAborted();
    return error instanceof Error ? error.message : String(error);
  } finally {
    agent.close();
  }
}

async function agentPage(
  config: Config,
  signal: AbortSignal,
): Promise<Pick<Facts, 'members'> & Partial<Pick<Facts, 'pulls'>>> {
  const { admin } = config.agent;
  if (admin === '') throw new Error('agent.admin is empty, so the agent cannot be asked');
  return (await fetchPage(`http://${admin}/status`, signal)) as Awaited<
    ReturnType<typeof agentPage>
  >;
}

async function fetchPage(url: string, signal: AbortSignal): Promise<unknown> {
  let response: Response;
  try {
    response = await fetch(url, {
      signal: AbortSignal.any([signal, AbortSignal.timeout(CALL_MS)]),
    });
  } catch (error) {
    const { cause, message } = error as Error & { cause?: { code?: string } };
    throw new Error(`${url} does not answer: ${cause?.code ?? message}`, { cause: error });
  }
  if (!response.ok) throw new Error(`${url} answers ${response.status}`);
  return response.json();
}

async function gatherIdentity(tls: Config['tls']): Promise<Facts['identity']> {
  try {
    return { facts: checkIdentity(await readIdentity(tls), { nowMs: Date.now() }) };
  } catch (error) {
    return { failure: error instanceof Error ? error.message : String(error) };
  }
}
