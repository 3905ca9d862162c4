import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import type { Member } from './membership.ts';

/** An IP family, as addresses are chosen by. */
export type Family = 'IPv4' | 'IPv6';

/** "host:port", with brackets where the host is an IPv6 address. */
export function joinAddress(host: string, port: number): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Takes "host:port" apart; the host without brackets. */
export function splitAddress(address: string): { readonly host: string; readonly port: number } {
  const colon = address.lastIndexOf(':');
  const host = address.slice(0, colon).replace(/^\[|\]$/g, '');
  return { host, port: Number(address.slice(colon + 1)) };
}

/** The family in which an agent that listens there should be spoken to by its equals. */
export function familyOf(listen: string): Family {
  return isIP(splitAddress(listen).host) === 6 ? 'IPv6' : 'IPv4';
}

/**
 * Recognises this node among members: by its name, or by an address of this machine together with
 * the port on which its agent listens.
 *
 * @param own.listen "host:port" of the own agent
 * @param addresses of this machine; asked for anew each time
 */
export function selfCheck(
  own: { readonly name: string; readonly listen: string },
  addresses: () => ReadonlySet<string> = machineAddresses,
): (member: Member) => boolean {
  const { port } = splitAddress(own.listen);
  return ({ name, address }) => {
    if (name === own.name) return true;
    const member = splitAddress(address);
    return member.port === port && addresses().has(member.host);
  };
}

function machineAddresses(): ReadonlySet<string> {
  const all = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  return new Set(all.map(({ address }) => address));
}
