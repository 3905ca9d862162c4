import { parseAddress, textFormats } from '../config/text-format.ts';

/**
 * Where containerd finds the registry of this node. One that listens everywhere is asked on this
 * machine.
 *
 * @param listen "host:port", as configured
 * @param given instead of it
 * @throws when it is no URL that containerd could be sent to
 */
export function mirrorUrlOf(listen: string, given?: string): string {
  const address = parseAddress(listen);
  const host =
    address?.host === '0.0.0.0' ? '127.0.0.1' : address?.host === '::' ? '::1' : address?.host;
  const own = `http://${host?.includes(':') ? `[${host}]` : host}:${address?.port}`;
  const url = given ?? own;
  const isGood =
    textFormats.apiUrl.matches(url) && new URL(url).pathname === '/' && !url.endsWith(':0');
  if (!isGood) {
    throw new Error(
      `Cannot send containerd to ${url}: give --mirror-url, such as http://127.0.0.1:7480`,
    );
  }
  return new URL(url).origin;
}
