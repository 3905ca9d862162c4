import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { splitAddress } from '../rpc/address.ts';
import type { Member } from './membership.ts';

/** An IP family, as addresses are chosen by. */
export type Family = 'IPv4' | 'IPv6';

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
