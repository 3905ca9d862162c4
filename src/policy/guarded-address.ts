import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';

/**
 * The ranges that an image's name must never lead to unless the configuration says so: this host,
 * its links (which is where clouds keep their metadata service), and nowhere.
 */
const GUARDED_RANGES: ReadonlySet<string> = new Set([
  'unspecified',
  'broadcast',
  'multicast',
  'linkLocal',
  'loopback',
  'reserved',
]);

/** Where clouds keep metadata, credentials and host services outside of the ranges above. */
const GUARDED_NETWORKS = [
  '100.100.100.200/32',
  '168.63.129.16/32',
  'fd00:42::42/128',
  'fd00:100::100:200/128',
  'fd00:a9fe:a9fe::1/128',
  'fd00:c1::a9fe:a9fe/128',
  'fd00:ec2::/32',
  'fd20:ce::254/128',
].map((network) => ipaddr.parseCIDR(network));

/**
 * Whether an address must not be dialled unless the configuration says so.
 *
 * @throws when it is no address
 */
export function isGuardedAddress(address: string): boolean {
  const parsed = plainForm(address);
  if (GUARDED_RANGES.has(parsed.range())) return true;
  return GUARDED_NETWORKS.some(
    ([network, bits]) => network.kind() === parsed.kind() && parsed.match(network, bits),
  );
}

/**
 * Whether a registry's name is itself an address that is guarded. Other names may lead to one,
 * which their lookup shows.
 *
 * @param name "host" or "host:port", the host being an address or a DNS name
 */
export function isGuardedHost(name: string): boolean {
  const host = new URL(`http://${name}/`).hostname.replace(/^\[|\]$/g, '');
  if (isIP(host) === 0) return host === 'localhost' || host.endsWith('.localhost');
  return isGuardedAddress(host);
}

/**
 * An IPv4 address, its mapped form and its NAT64 form (RFC 6052) are the same place.
 *
 * @throws when it is no address
 */
export function plainForm(address: string): ipaddr.IPv4 | ipaddr.IPv6 {
  const parsed = ipaddr.process(address);
  return parsed.kind() === 'ipv6' && parsed.range() === 'rfc6052'
    ? new ipaddr.IPv4(parsed.toByteArray().slice(-4))
    : parsed;
}
