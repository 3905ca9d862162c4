import { execFile } from 'node:child_process';
import { readlink } from 'node:fs/promises';
import { promisify } from 'node:util';
import { Program } from '../process.ts';
import type { TestScope } from '../test-scope.ts';
import { waitFor, type WaitOptions } from '../wait.ts';

const run = promisify(execFile);
const callTimeoutMs = 10_000;
/** Set aside for tests of networks (RFC 2544); no way leads from here to any other network. */
const subnet = '198.18.0';

/** A machine of its own as far as the network is concerned: an address, and a loopback. */
export interface NetworkHost {
  readonly name: string;
  readonly address: string;
  /** Path of its network namespace. */
  readonly namespacePath: string;
  /** Put in front of a command: it then is on this machine's network. */
  readonly launcher: readonly string[];
}

/**
 * Machines that are joined by a switch: network namespaces, and a bridge in one of its own. The
 * namespaces end with the programs that hold them, whatever ends those.
 */
export class NodeNetwork {
  readonly #scope: TestScope;
  readonly #switch: Holder;
  #count = 0;

  private constructor(scope: TestScope, holder: Holder) {
    this.#scope = scope;
    this.#switch = holder;
  }

  /** Makes a switch that ends with the scope. Needs root. */
  static async create(scope: TestScope): Promise<NodeNetwork> {
    const holder = await hold(scope, 'switch');
    await ip(holder, ['link', 'add', 'br0', 'type', 'bridge']);
    await ip(holder, ['link', 'set', 'br0', 'up']);
    return new NodeNetwork(scope, holder);
  }

  /** Adds a machine that is connected to the switch. */
  async add(name: string): Promise<NetworkHost> {
    this.#count += 1;
    const index = this.#count;
    const address = `${subnet}.${index}`;
    const holder = await hold(this.#scope, name);
    const port = `port${index}`;
    const peer = ['peer', 'name', 'eth0', 'netns', String(holder.pid)];
    await ip(this.#switch, ['link', 'add', port, 'type', 'veth', ...peer]);
    await ip(this.#switch, ['link', 'set', port, 'master', 'br0', 'up']);
    await ip(holder, ['address', 'add', `${address}/24`, 'dev', 'eth0']);
    await ip(holder, ['link', 'set', 'lo', 'up']);
    await ip(holder, ['link', 'set', 'eth0', 'up']);
    return {
      name,
      address,
      namespacePath: holder.namespacePath,
      launcher: launcherOf(holder.namespacePath),
    };
  }

  /** Pulls a machine's cable, or puts it back: what is sent to it is lost without a word. */
  async setCable(host: NetworkHost, state: 'in' | 'out'): Promise<void> {
    const port = `port${host.address.split('.').at(-1)}`;
    await ip(this.#switch, ['link', 'set', port, state === 'in' ? 'up' : 'down']);
  }

  /** Lets no more come to a machine than so many bits a second, such as "100mbit". */
  async limitRate(host: NetworkHost, rate: string): Promise<void> {
    const port = `port${host.address.split('.').at(-1)}`;
    const shape = ['root', 'tbf', 'rate', rate, 'burst', '256k', 'latency', '200ms'];
    await call(this.#switch, ['tc', 'qdisc', 'replace', 'dev', port, ...shape]);
  }
}

/** Waits until something accepts connections at an address, as seen from a machine. */
export async function waitForListener(
  from: NetworkHost,
  target: { readonly address: string; readonly port: number },
  options: WaitOptions = {},
): Promise<void> {
  const what = `a listener on ${target.address}:${target.port}`;
  await waitFor(() => canConnect(from, target), { what, ...options });
}

/** @returns whether something accepts connections at an address, as seen from a machine */
export async function canConnect(
  from: NetworkHost,
  { address, port }: { readonly address: string; readonly port: number },
): Promise<boolean> {
  const [command, ...first] = from.launcher as [string, ...string[]];
  const probe = ['timeout', '1', 'bash', '-c', `: </dev/tcp/${address}/${port}`];
  return run(command, [...first, ...probe], { timeout: callTimeoutMs }).then(
    () => true,
    () => false,
  );
}

interface Holder {
  readonly pid: number;
  readonly namespacePath: string;
  readonly launcher: readonly string[];
}

function launcherOf(namespacePath: string): readonly string[] {
  return ['nsenter', `--net=${namespacePath}`, '--'];
}

async function hold(scope: TestScope, name: string): Promise<Holder> {
  const program = await Program.start(scope, {
    name: `${name}-network`,
    command: 'unshare',
    arguments: ['--net', '--', 'sleep', '1d'],
  });
  const namespacePath = `/proc/${program.pid}/ns/net`;
  const own = await readlink('/proc/self/ns/net');
  await waitFor(async () => (await readlink(namespacePath)) !== own, { what: `${name}'s network` });
  return { pid: program.pid, namespacePath, launcher: launcherOf(namespacePath) };
}

async function ip(holder: Holder, arguments_: readonly string[]): Promise<void> {
  await call(holder, ['ip', ...arguments_]);
}

async function call(holder: Holder, command: readonly string[]): Promise<void> {
  const [first, ...others] = [...holder.launcher, ...command];
  await run(first!, others, { timeout: callTimeoutMs });
}
