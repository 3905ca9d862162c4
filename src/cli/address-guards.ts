import type { Config } from '../config/schema.ts';
import { AddressGuard } from '../policy/address-guard.ts';

type UpstreamsConfig = Pick<Config['registry'], 'mirrors' | 'upstreams'>;

/**
 * What may be dialled for a registry at one URL: an address that the configuration itself names is
 * meant to be.
 *
 * @param name of the registry, as images have it
 * @param urls that are configured for it, or those of them that are to be asked
 */
export function guardOf(
  name: string,
  { upstreams }: Pick<UpstreamsConfig, 'upstreams'>,
  urls: readonly string[],
): AddressGuard {
  const own = urls.flatMap((url) => AddressGuard.networkOf(new URL(url).hostname));
  return new AddressGuard([...(upstreams[name]?.allowAddresses ?? []), ...own]);
}

/** The same for whoever asks the registry by way of another process, which chooses the URL. */
export function guardOfAll(name: string, config: UpstreamsConfig): AddressGuard {
  const settings = config.upstreams[name];
  const places = settings === undefined ? config.mirrors : [settings, ...settings.endpoints];
  const urls = places.map(({ url }) => url).filter((url) => url !== '');
  return guardOf(name, config, urls);
}
