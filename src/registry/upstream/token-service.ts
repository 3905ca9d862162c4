import { setTimeout as sleep } from 'node:timers/promises';
import { LRUCache } from 'lru-cache';
import { parseChallenges } from '../../oci/challenge.ts';
import type { UpstreamClient, UpstreamResponse } from './upstream-client.ts';
import { UpstreamFailure } from './upstream-failure.ts';

export interface TokenServicesOptions {
  /** How long one look may take, milliseconds, as all below. */
  readonly probeTimeoutMs: number;
  /** Between the two looks that prove it down. */
  readonly proofGapMs: number;
  /** How long a service that answered is taken to be alive. */
  readonly aliveMs: number;
  /** How long one that did not is taken to be down. */
  readonly downMs: number;
}

const MAX_REALMS = 64;

/**
 * Whether the services that hand out tokens answer. A challenge that names a dead one is worse
 * than none: the client cannot get a token and gives up on this mirror.
 */
export class TokenServices {
  readonly #options: TokenServicesOptions;
  readonly #client: Pick<UpstreamClient, 'look' | 'host'>;
  readonly #known: LRUCache<string, Promise<UpstreamFailure | undefined>>;

  constructor(
    options: TokenServicesOptions,
    dependencies: { client: Pick<UpstreamClient, 'look' | 'host'> },
  ) {
    this.#options = options;
    this.#client = dependencies.client;
    this.#known = new LRUCache({ max: MAX_REALMS });
  }

  /**
   * Looks at the token service that a challenge names. Never throws.
   *
   * @returns the failure that proves it down; undefined when it answers, when there is none, or
   *   when it may not be dialled from here (the client may reach it all the same)
   */
  async check(response: UpstreamResponse): Promise<UpstreamFailure | undefined> {
    const challenges = parseChallenges(response.headers['www-authenticate']);
    const realm = challenges.find(({ scheme }) => scheme.toLowerCase() === 'bearer')?.params[
      'realm'
    ];
    if (realm === undefined || !URL.canParse(realm)) return undefined;
    let known = this.#known.get(realm);
    if (known === undefined) {
      known = this.#look(new URL(realm));
      this.#known.set(realm, known);
      void known.then((failure) => {
        const { aliveMs, downMs } = this.#options;
        this.#known.set(realm, Promise.resolve(failure), { ttl: failure ? downMs : aliveMs });
      });
    }
    return known;
  }

  /** One look, and a little later another while that has no answer: one is enough. */
  async #look(realm: URL): Promise<UpstreamFailure | undefined> {
    const answer = async (): Promise<void> => {
      const failure = await this.#lookOnce(realm);
      if (failure !== undefined) throw failure;
    };
    const first = answer();
    const second = async (): Promise<void> => {
      const early = await Promise.race([
        first.then(
          () => true,
          () => sleep(this.#options.proofGapMs),
        ),
        sleep(this.#options.proofGapMs),
      ]);
      return early === true ? undefined : answer();
    };
    try {
      await Promise.any([first, second()]);
      return undefined;
    } catch (error) {
      const failure = UpstreamFailure.from((error as AggregateError).errors.at(-1), realm.host);
      return new UpstreamFailure('token_service', `The token service of ${failure.message}`, {
        cause: failure,
        origin: realm.host,
        isProven: true,
      });
    }
  }

  async #lookOnce(realm: URL): Promise<UpstreamFailure | undefined> {
    try {
      const status = await this.#client.look(realm, { timeoutMs: this.#options.probeTimeoutMs });
      if (status < 500) return undefined;
      return new UpstreamFailure('server_error', `${realm.host} answers ${status}`);
    } catch (error) {
      const failure = UpstreamFailure.from(error, realm.host);
      return failure.isOutageSign ? failure : undefined;
    }
  }
}
