import { lookup as dnsLookup, type LookupAddress } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';
import ipaddr from 'ipaddr.js';
import { isGuardedAddress, isGuardedHost, plainForm } from './guarded-address.ts';

/** An address that was not dialled, since it is guarded. The message says what to do. */
export class ForbiddenAddressError extends Error {
  override readonly name = 'ForbiddenAddressError';

  /** @param host as it was to be dialled */
  constructor(host: string) {
    super(
      `${host} leads to an address that may not be dialled; ` +
        'list its network under allowAddresses of this upstream if that is meant',
    );
  }
}

/** Decides which addresses may be dialled at the word of a client or of a server. */
export class AddressGuard {
  readonly #allowed: readonly [ipaddr.IPv4 | ipaddr.IPv6, number][];

  /**
   * @param allowed CIDRs that may be dialled although they are guarded
   * @throws when one is not a CIDR
   */
  constructor(allowed: readonly string[]) {
    this.#allowed = allowed.map((cidr) => ipaddr.parseCIDR(cidr));
  }

  /**
   * The networks that a host written by the operator stands for: an address is itself, localhost
   * is loopback; a name stands for none, since its addresses are not the operator's to decide.
   */
  static networkOf(hostname: string): readonly string[] {
    const host = hostname.replace(/^\[|\]$/g, '');
    if (host === 'localhost') return ['127.0.0.0/8', '::1/128'];
    const version = isIP(host);
    return version === 0 ? [] : [`${host}/${version === 4 ? 32 : 128}`];
  }

  /**
   * Whether a registry's name is itself an address that is guarded. Other names may lead to one,
   * which their lookup shows.
   *
   * @param name "host" or "host:port", the host being an address or a DNS name
   */
  static guards(name: string): boolean {
    return isGuardedHost(name);
  }

  /** Whether an address may be dialled. */
  permits(address: string): boolean {
    if (!isGuardedAddress(address)) return true;
    const parsed = plainForm(address);
    return this.#allowed.some(
      ([network, bits]) => network.kind() === parsed.kind() && parsed.match(network, bits),
    );
  }

  /**
   * Checks a host that is written as an address; names are checked when they are looked up.
   *
   * @throws ForbiddenAddressError
   */
  checkHost(hostname: string): void {
    const host = hostname.replace(/^\[|\]$/g, '');
    if (isIP(host) !== 0 && !this.permits(host)) throw new ForbiddenAddressError(hostname);
  }

  /**
   * A DNS lookup that yields permitted addresses only, for net.connect; where there are none, it
   * fails with a ForbiddenAddressError.
   */
  readonly lookup: LookupFunction = (hostname, options, callback) => {
    dnsLookup(hostname, { ...options, all: true }, (error, addresses: LookupAddress[]) => {
      if (error !== null) {
        callback(error, '', 0);
        return;
      }
      const permitted = addresses.filter(({ address }) => this.permits(address));
      const [first] = permitted;
      if (first === undefined) callback(new ForbiddenAddressError(hostname), '', 0);
      else if (options.all === true) callback(null, permitted);
      else callback(null, first.address, first.family);
    });
  };
}
