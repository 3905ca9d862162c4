import { isIP } from 'node:net';
import type { Clock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { MemberList } from './member-list.ts';
import type { Member } from './membership.ts';
import { joinAddress } from '../rpc/address.ts';
import type { Family } from './own-address.ts';

/** The questions that are asked; node:dns/promises has them all. */
export interface NameResolver {
  resolve4(name: string): Promise<string[]>;
  resolve6(name: string): Promise<string[]>;
  resolveSrv(name: string): Promise<{ name: string; port: number }[]>;
}

export interface DnsMembershipOptions {
  /** "_service._proto.name" is asked for SRV records, every other name for its addresses. */
  readonly name: string;
  /** Port of the agents, where the name has no SRV records. */
  readonly port: number;
  readonly intervalMs: number;
  readonly family: Family;
}

export interface DnsMembershipDependencies {
  /** @returns a resolver that gives up in time, made anew for each round */
  readonly createResolver: () => NameResolver;
  readonly list: Pick<MemberList, 'replace' | 'reportTrouble'>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly onTrouble?: () => void;
}

const MAX_TARGETS = 4096;
const PARALLEL_QUESTIONS = 16;
/** The name exists, without such records, or does not exist: c-ares codes. */
const NOTHING_THERE: ReadonlySet<unknown> = new Set(['ENODATA', 'ENOTFOUND']);

/**
 * Keeps a list of members by a DNS name that is asked again and again. A failed round changes
 * nothing; of SRV records one whose target has no address just now keeps the address it had.
 */
export class DnsMembership {
  readonly #options: DnsMembershipOptions;
  readonly #dependencies: DnsMembershipDependencies;
  readonly #stop = new AbortController();
  #known: ReadonlyMap<string, Member> = new Map();
  #hasFailed = false;
  #loop: Promise<void> = Promise.resolve();

  constructor(options: DnsMembershipOptions, dependencies: DnsMembershipDependencies) {
    this.#options = options;
    this.#dependencies = dependencies;
  }

  start(): void {
    this.#loop = this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const { clock } = this.#dependencies;
    while (!signal.aborted) {
      await this.#round();
      await clock.sleep(this.#options.intervalMs, { signal }).catch(() => undefined);
    }
  }

  async #round(): Promise<void> {
    const { createResolver, list, log, onTrouble } = this.#dependencies;
    const { name } = this.#options;
    try {
      const resolver = createResolver();
      const members = name.startsWith('_')
        ? await this.#byService(resolver)
        : await this.#byAddress(resolver);
      if (this.#stop.signal.aborted) return;
      this.#known = new Map(members.map((member) => [member.name, member]));
      this.#hasFailed = false;
      list.replace(members);
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      onTrouble?.();
      list.reportTrouble(error instanceof Error ? error.message : String(error));
      // Once is enough: this comes every few seconds while the name server is down.
      const level = this.#hasFailed ? 'debug' : 'warn';
      this.#hasFailed = true;
      log[level]({ name, err: error }, 'cannot resolve the members, they stay');
    }
  }

  async #byAddress(resolver: NameResolver): Promise<Member[]> {
    const { name, port } = this.#options;
    const hosts = await this.#addresses(resolver, name);
    return hosts
      .slice(0, MAX_TARGETS)
      .sort()
      .map((host) => {
        const address = joinAddress(host, port);
        return { name: address, address };
      });
  }

  async #byService(resolver: NameResolver): Promise<Member[]> {
    const records = await orNothing(resolver.resolveSrv(this.#options.name));
    const targets = new Map<string, number>();
    for (const { name, port } of records.slice(0, MAX_TARGETS)) {
      targets.set(name.replace(/\.$/, ''), port);
    }
    const waiting = [...targets].sort(([a], [b]) => (a < b ? -1 : 1));
    const members: Member[] = [];
    const work = async (): Promise<void> => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        const member = await this.#memberOf(resolver, next);
        if (member !== undefined) members.push(member);
      }
    };
    await Promise.all(Array.from({ length: PARALLEL_QUESTIONS }, work));
    return members.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async #memberOf(
    resolver: NameResolver,
    [name, port]: [string, number],
  ): Promise<Member | undefined> {
    const known = this.#known.get(name);
    try {
      const [host] = (await this.#addresses(resolver, name)).sort();
      return host === undefined ? known : { name, address: joinAddress(host, port) };
    } catch (error) {
      if (known === undefined) throw error;
      return known;
    }
  }

  /** Addresses of the preferred family, or of the other where it has none. */
  async #addresses(resolver: NameResolver, name: string): Promise<string[]> {
    if (isIP(name) !== 0) return [name];
    const four = (): Promise<string[]> => orNothing(resolver.resolve4(name));
    const six = (): Promise<string[]> => orNothing(resolver.resolve6(name));
    const [first, second] = this.#options.family === 'IPv6' ? [six, four] : [four, six];
    const preferred = await first();
    return preferred.length > 0 ? preferred : second();
  }
}

/** An empty answer where the name server says that there is nothing. */
async function orNothing<T>(answer: Promise<T[]>): Promise<T[]> {
  try {
    return await answer;
  } catch (error) {
    if (NOTHING_THERE.has((error as NodeJS.ErrnoException).code)) return [];
    throw error;
  }
}
