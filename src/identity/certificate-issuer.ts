import type { X509Certificate } from 'node:crypto';
import {
  authorityFromPem,
  authorityToPem,
  createAuthority,
  issueIdentity,
} from '../rpc/certificates.ts';
import { certificatesIn, checkIdentity } from '../rpc/identity-facts.ts';
import type { Identity } from '../rpc/identity.ts';
import type { AuthorityState, KeptAuthority } from './authority-state.ts';
import { addressesFor } from './identity-addresses.ts';
import type { AuthorityStore, IdentityStore } from './identity-store.ts';

export interface CertificateIssuerOptions {
  /** Lifetime of identities, milliseconds. */
  readonly identityValidMs: number;
  /** Lifetime of authorities, milliseconds. */
  readonly authorityValidMs: number;
  /** How long every node may take to take over what was issued, milliseconds. */
  readonly settleMs: number;
}

/** What is wanted beside what time makes necessary. */
export interface IssueRequest {
  /** Begin to replace the authority. */
  readonly replaceAuthority?: boolean;
  /** Issue every identity anew. */
  readonly renewIdentities?: boolean;
  /**
   * DNS names and IP addresses under which containerd reaches agents; they go into identities of
   * that role. Undefined: those that are in the present ones stay.
   */
  readonly agentAddresses?: readonly string[];
  /** Names of identities that are gone for good. */
  readonly forget?: readonly string[];
}

/** What was done, for people and machines. */
export interface IssueReport {
  /** One line each. */
  readonly done: readonly string[];
  readonly phase: AuthorityState['phase'];
  /** When the next step of a replacement may be taken; undefined: none is waiting. */
  readonly nextStepAtMs: number | undefined;
}

/** With less than this share of its life left a certificate is replaced. */
const RENEW_SHARE = 1 / 3;

/**
 * Keeps the authority and the identities of a cluster in order. Every run does what is due and may
 * be repeated, or break off, at any point: the authority's state is written before what follows
 * from it, and a replacement goes on only when everything has agreed with its last step for long
 * enough that all nodes have taken it over. So at no time is there a node whose certificate
 * another node does not trust.
 */
export class CertificateIssuer {
  readonly #options: CertificateIssuerOptions;
  readonly #authority: AuthorityStore;
  readonly #identities: readonly IdentityStore[];
  readonly #now: () => number;

  constructor(
    options: CertificateIssuerOptions,
    dependencies: {
      authority: AuthorityStore;
      identities: readonly IdentityStore[];
      now: () => number;
    },
  ) {
    this.#options = options;
    this.#authority = dependencies.authority;
    this.#identities = dependencies.identities;
    this.#now = dependencies.now;
  }

  /** @throws when something cannot be read or written; the next run goes on from there */
  async run(request: IssueRequest = {}): Promise<IssueReport> {
    const done: string[] = [];
    let state = await this.#authority.read();
    if (state === undefined) {
      state = await this.#begin();
      await this.#authority.write(state);
      done.push(`${this.#authority.name}: made a new authority`);
    }
    const gone = request.forget ?? [];
    if (state.targets.some((name) => gone.includes(name))) {
      state = { ...state, targets: state.targets.filter((name) => !gone.includes(name)) };
      await this.#authority.write(state);
    }
    const isForced = request.renewIdentities === true;
    state = await this.#distribute(state, { done, request, isForced });
    const following = await this.#next(state, request);
    if (following !== undefined) {
      await this.#authority.write(following.state);
      done.push(`${this.#authority.name}: ${following.what}`);
      state = await this.#distribute(following.state, { done, request, isForced: false });
    }
    return { done, phase: state.phase, nextStepAtMs: this.#nextStepAtMs(state) };
  }

  /** Where identities are there without their authority, those who trust them must go on. */
  async #begin(): Promise<AuthorityState> {
    const made = await this.#make();
    const targets: string[] = [];
    const trusted = new Map<string, string>();
    for (const store of this.#identities) {
      const identity = await store.read();
      if (identity === undefined || !this.#isUsable(identity)) continue;
      for (const certificate of certificatesIn(identity.ca)) {
        trusted.set(certificate.fingerprint256, certificate.toString());
      }
    }
    if (trusted.size === 0) return { phase: 'steady', current: made, targets };
    const current = { certificate: [...trusted.values()].join('') };
    return { phase: 'introducing', current, next: made, targets };
  }

  /** @returns the state in which every identity agrees with the phase */
  async #distribute(
    state: AuthorityState,
    options: {
      readonly done: string[];
      readonly request: IssueRequest;
      readonly isForced: boolean;
    },
  ): Promise<AuthorityState> {
    const names = this.#identities.map(({ name }) => name);
    const forgotten = state.targets.filter((name) => !names.includes(name));
    if (forgotten.length > 0) {
      const list = forgotten.join(', ');
      throw new Error(
        `Cannot go on: the authority has issued identities for ${list}, too; name them all, or ` +
          'give up those that are gone with --forget',
      );
    }
    // Known before it is made, so that nothing is ever issued that a replacement would forget.
    let known = state;
    if (names.some((name) => !state.targets.includes(name))) {
      known = { ...state, targets: names };
      await this.#authority.write(known);
    }
    let changes = 0;
    for (const store of this.#identities) {
      const what = await this.#bringUpToDate(store, known, options);
      if (what === undefined) continue;
      changes += 1;
      options.done.push(`${store.name}: ${what}`);
    }
    if (changes === 0 && known.distributedAtMs !== undefined) return known;
    const distributed = { ...known, distributedAtMs: this.#now() };
    await this.#authority.write(distributed);
    return distributed;
  }

  /** @returns what was changed; undefined: nothing had to be */
  async #bringUpToDate(
    store: IdentityStore,
    state: AuthorityState,
    { isForced, request }: { readonly request: IssueRequest; readonly isForced: boolean },
  ): Promise<string | undefined> {
    const known = await store.read();
    const ca = trustedBy(state);
    const addresses = addressesFor(store, known, request.agentAddresses);
    const signer = this.#signerOf(state, known);
    const reason =
      isForced && signer !== undefined
        ? 'as asked'
        : this.#faultOf(known, { roles: store.roles, addresses }, state);
    if (reason !== undefined && signer !== undefined) {
      const authority = await authorityFromPem(signer);
      const identity = await issueIdentity(authority, store.roles, {
        addresses,
        nowMs: this.#now(),
        validMs: Math.min(
          this.#options.identityValidMs,
          authority.certificate.notAfter.getTime() - this.#now(),
        ),
      });
      await store.write({ ...identity, ca: Buffer.from(ca) });
      return `issued for ${store.roles.join(' and ')}, ${reason}`;
    }
    if (known === undefined || isSameSet(known.ca, ca)) return undefined;
    await store.write({ ...known, ca: Buffer.from(ca) });
    const count = certificatesIn(ca).length;
    return `now trusts ${count === 1 ? 'one authority' : `${count} authorities`}`;
  }

  /** Who may sign in this phase: an authority that was taken over without its key cannot. */
  #signerOf(
    state: AuthorityState,
    known: Identity | undefined,
  ): { certificate: string; key: string } | undefined {
    const { certificate, key } = state.current;
    if (key !== undefined) return { certificate, key };
    const isNeeded = known === undefined || !this.#isUsable(known);
    const { next } = state;
    return isNeeded && next?.key !== undefined ? { ...next, key: next.key } : undefined;
  }

  /** @returns why an identity has to be issued anew */
  #faultOf(
    identity: Identity | undefined,
    wanted: Pick<IdentityStore, 'roles'> & { readonly addresses: readonly string[] },
    state: AuthorityState,
  ): string | undefined {
    if (identity === undefined) return 'there was none';
    const trusted = { ...identity, ca: Buffer.from(trustedBy(state)) };
    let leaf: ReturnType<typeof checkIdentity>;
    try {
      leaf = checkIdentity(trusted, { nowMs: this.#now() });
    } catch (error) {
      return `the old one was of no use: ${error instanceof Error ? error.message : String(error)}`;
    }
    const { addresses, roles } = wanted;
    if (roles.some((role) => !leaf.roles.has(role)) || leaf.roles.size > roles.length) {
      return 'the old one was for other roles';
    }
    if (leaf.addresses.join() !== addresses.join()) return 'the old one was for other addresses';
    if (this.#isOld(leaf.leaf)) return 'the old one is near its end';
    const isCurrent = issued(identity, state.current) || state.phase === 'introducing';
    return isCurrent ? undefined : 'the old one was by the previous authority';
  }

  #isUsable(identity: Identity): boolean {
    try {
      checkIdentity(identity, { nowMs: this.#now() });
      return true;
    } catch {
      return false;
    }
  }

  /** @returns the next step of a replacement, if one is due */
  async #next(
    state: AuthorityState,
    request: IssueRequest,
  ): Promise<{ state: AuthorityState; what: string } | undefined> {
    const { phase, current, next, targets } = state;
    const atMs = this.#nextStepAtMs(state);
    if (phase === 'steady') {
      const isDue = request.replaceAuthority === true || this.#isNearItsEnd(current);
      if (!isDue) return undefined;
      const made = await this.#make();
      return {
        state: { phase: 'introducing', current, next: made, targets },
        what: 'introduced a new authority beside the current one, which still signs',
      };
    }
    if (atMs === undefined || atMs > this.#now()) return undefined;
    if (phase === 'introducing' && next !== undefined) {
      // Its key has nothing more to sign.
      const previous = { certificate: current.certificate };
      return {
        state: { phase: 'replacing', current: next, previous, targets },
        what: 'the new authority signs from now on, the previous one is still trusted',
      };
    }
    return {
      state: { phase: 'steady', current, targets },
      what: 'the previous authority is trusted no longer',
    };
  }

  #nextStepAtMs({ phase, current, distributedAtMs }: AuthorityState): number | undefined {
    if (phase === 'steady') return undefined;
    // Nobody trusts an authority that has ended: waiting would help no one.
    if (phase === 'introducing' && this.#hasEnded(current)) return this.#now();
    return (distributedAtMs ?? this.#now()) + this.#options.settleMs;
  }

  async #make(): Promise<KeptAuthority> {
    const validMs = this.#options.authorityValidMs;
    return authorityToPem(await createAuthority({ nowMs: this.#now(), validMs }));
  }

  #isNearItsEnd({ certificate }: KeptAuthority): boolean {
    return certificatesIn(certificate).some((each) => this.#isOld(lifeOf(each)));
  }

  #hasEnded({ certificate }: KeptAuthority): boolean {
    return certificatesIn(certificate).every((each) => lifeOf(each).notAfterMs <= this.#now());
  }

  #isOld(life: { readonly notBeforeMs: number; readonly notAfterMs: number }): boolean {
    const wholeMs = life.notAfterMs - life.notBeforeMs;
    return life.notAfterMs - this.#now() < wholeMs * RENEW_SHARE;
  }
}

/** The authorities that are trusted in a phase, PEM; the one that signs comes first. */
function trustedBy({ current, next, previous }: AuthorityState): string {
  const all = [current, next, previous].filter((each) => each !== undefined);
  return all.map(({ certificate }) => `${certificate.trimEnd()}\n`).join('');
}

function lifeOf(certificate: X509Certificate): { notBeforeMs: number; notAfterMs: number } {
  return {
    notBeforeMs: Date.parse(certificate.validFrom),
    notAfterMs: Date.parse(certificate.validTo),
  };
}

function issued(identity: Identity, authority: KeptAuthority): boolean {
  const [leaf] = certificatesIn(identity.certificate);
  return certificatesIn(authority.certificate).some(
    (each) => leaf !== undefined && leaf.checkIssued(each) && leaf.verify(each.publicKey),
  );
}

function isSameSet(pem: Buffer, other: string): boolean {
  try {
    const fingerprints = (text: Buffer | string): string =>
      certificatesIn(text)
        .map(({ fingerprint256 }) => fingerprint256)
        .sort()
        .join();
    return fingerprints(pem) === fingerprints(other);
  } catch {
    return false;
  }
}
