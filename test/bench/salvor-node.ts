import { link, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { parseDigest } from '../../src/oci/digest.ts';
import { AgentClient } from '../../src/rpc/agent-client.ts';
import { createAuthority, type Authority } from '../../src/rpc/certificates.ts';
import type { BlobFile } from '../support/layer.ts';
import { writeIdentity } from '../support/identity-files.ts';
import { freePort } from '../support/ports.ts';
import { Program } from '../support/process.ts';
import type { TestScope } from '../support/test-scope.ts';
import { sourceProgram, type ProgramPath } from '../support/program-path.ts';
import { waitFor } from '../support/wait.ts';

const readyTimeoutMs = 20_000;
const verifyTimeoutMs = 60_000;

/** One node without containerd: a registry and an agent over a directory store. */
export interface SalvorNode {
  readonly name: string;
  readonly registryPort: number;
  readonly registry: Program;
  readonly agent: Program;
  /** Path of the agent's unix socket. */
  readonly socket: string;
}

export interface SalvorNodeOptions {
  readonly name: string;
  /** "127.0.0.1:port" of its agent for other nodes. */
  readonly agentAddress: string;
  readonly members: readonly { readonly name: string; readonly address: string }[];
  readonly upstreams: Readonly<Record<string, object>>;
  /** What its store holds from the beginning. */
  readonly blobs: readonly BlobFile[];
  /** More arguments of node itself, such as --cpu-prof. */
  readonly nodeArguments?: readonly string[];
  /** As sources unless told. */
  readonly program?: ProgramPath;
}

/** Nodes by name, each with an address for its agent. */
export async function nameMembers(
  names: readonly string[],
): Promise<{ name: string; address: string }[]> {
  const members: { name: string; address: string }[] = [];
  for (const name of names) members.push({ name, address: `127.0.0.1:${await freePort()}` });
  return members;
}

/**
 * Starts a node as it runs in production: two processes, mutual TLS towards other nodes. Returns
 * when its agent has hashed every blob that it holds.
 */
export async function startSalvorNode(
  scope: TestScope,
  options: SalvorNodeOptions,
  authority: Authority,
): Promise<SalvorNode> {
  const { name } = options;
  const directory = join(scope.directory, name);
  const store = join(directory, 'store');
  await mkdir(join(store, 'blobs', 'sha256'), { recursive: true });
  for (const { path, digest } of options.blobs) {
    await link(path, join(store, 'blobs', digest.replace(':', '/')));
  }
  const registryPort = await freePort();
  const socket = join(scope.socketDirectory, `${name}.sock`);
  const config = {
    node: { name, stateDirectory: join(directory, 'state') },
    registry: {
      listen: `127.0.0.1:${registryPort}`,
      admin: '',
      agentSocket: socket,
      proveSocket: '',
      upstreams: options.upstreams,
    },
    agent: {
      listen: options.agentAddress,
      admin: '',
      socket,
      store: { kind: 'directory', directory: { path: store } },
      members: { static: options.members },
      // What is measured is serving, not the first hours of a node.
      integrity: { bytesPerSecond: '1GiB' },
    },
    tls: await writeIdentity(directory, authority),
  };
  const configPath = join(directory, 'config.json');
  await writeFile(configPath, JSON.stringify(config, undefined, 2));
  const start = async (role: 'agent' | 'registry'): Promise<Program> => {
    const { command, main, env } = options.program ?? sourceProgram;
    const program = await Program.start(scope, {
      name: `${name}-${role}`,
      command,
      env: { ...process.env, ...env },
      arguments: [...(options.nodeArguments ?? []), main, role, '--config', configPath],
    });
    await program.waitForLine(/"msg":"ready"/, { timeoutMs: readyTimeoutMs });
    return program;
  };
  const agent = await start('agent');
  const registry = await start('registry');
  await waitUntilHashed(
    socket,
    options.blobs.map(({ digest }) => digest),
  );
  return { name, registryPort, registry, agent, socket };
}

/** A node that has nothing and knows no other. */
export async function startLoneNode(
  scope: TestScope,
  options: Pick<SalvorNodeOptions, 'name' | 'upstreams' | 'program'>,
): Promise<SalvorNode> {
  const members = await nameMembers([options.name]);
  const own = { ...options, agentAddress: members[0]!.address, members, blobs: [] };
  return startSalvorNode(scope, own, await createAuthority());
}

/**
 * Waits until an agent has hashed blobs that it holds.
 *
 * @param socket path of its unix socket
 * @throws when it does not hold one of them, or takes more than a minute
 */
export async function waitUntilHashed(socket: string, digests: readonly string[]): Promise<void> {
  const client = clientOf(socket);
  try {
    for (const text of digests) {
      const digest = parseDigest(text);
      if (!digest.ok) throw new Error(`Cannot use ${text}: ${digest.reason}`);
      await waitFor(
        async () => (await client.stat(digest.value, { timeoutMs: 5000 }))?.verified === true,
        { what: `a hash of ${text}`, timeoutMs: verifyTimeoutMs },
      );
    }
  } finally {
    client.close();
  }
}

/**
 * Waits until an agent knows what tags name: its registry tells it without waiting for it.
 *
 * @param socket path of its unix socket
 * @param names as "registry/repository:tag"
 * @throws when it does not learn of one of them within ten seconds
 */
export async function waitUntilObserved(socket: string, names: readonly string[]): Promise<void> {
  const client = clientOf(socket);
  const isKnown = async (name: string): Promise<boolean> => {
    for await (const event of client.locate({ name }, { timeoutMs: 5000 })) {
      if ('holder' in event && event.holder.tags.length > 0) return true;
    }
    return false;
  };
  try {
    for (const name of names) await waitFor(() => isKnown(name), { what: `knowledge of ${name}` });
  } finally {
    client.close();
  }
}

function clientOf(socket: string): AgentClient {
  return new AgentClient(
    { target: `unix:${socket}`, windowBytes: 64 * 1024, name: 'the agent' },
    { credentials: credentials.createInsecure() },
  );
}
