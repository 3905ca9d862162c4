import { readHeadersFile } from '../config/headers-file.ts';
import { defaultUpstreamUrl } from '../config/load.ts';
import type { Config, EndpointConfig, UpstreamConfig } from '../config/schema.ts';
import type { AddressGuard } from '../policy/address-guard.ts';
import type { RegistryMetrics } from '../registry/registry-metrics.ts';
import { Endpoint } from '../registry/upstream/endpoint.ts';
import { readProxies } from '../registry/upstream/proxy.ts';
import { TokenServices } from '../registry/upstream/token-service.ts';
import { UpstreamClient } from '../registry/upstream/upstream-client.ts';
import { UpstreamHealth } from '../registry/upstream/upstream-health.ts';
import { Upstream } from '../registry/upstream/upstream.ts';
import type { Logger } from '../telemetry/logger.ts';
import { guardOf } from './address-guards.ts';

/** How much of the time for an answer in an outage a token service may take. */
const TOKEN_SERVICE_SHARE = 0.75;
/** How long a token service that answered is taken to be alive, milliseconds. */
const TOKEN_SERVICE_ALIVE_MS = 10_000;

interface Dependencies {
  readonly log: Logger;
  readonly metrics: RegistryMetrics;
}

/**
 * Makes upstreams by name, as the configuration describes them; one that it does not mention is
 * the registry's own host over https.
 *
 * @returns throws when a file that the configuration names cannot be read
 * @throws when the environment names a proxy that is none: now, rather than at every pull
 */
export function upstreamFactory(
  config: Config['registry'],
  dependencies: Dependencies,
): (name: string) => Upstream {
  const { budgets } = config;
  readProxies(process.env);
  return (name) => {
    const settings = config.upstreams[name];
    const places = placesOf(name, settings, config.mirrors);
    const onOutage = (cause: string): void => {
      if (upstream.outage === undefined) return;
      const { outages, registryLabel } = dependencies.metrics;
      outages.inc({ registry: registryLabel(name), cause });
    };
    const log = dependencies.log.child({ registry: name });
    const upstream: Upstream = new Upstream(
      { name, peers: settings?.peers ?? 'fallback', budgets },
      {
        endpoints: places.map((place) => {
          const guard = guardAt(place, { ...config, name });
          return endpointAt(place, { ...config, name }, { guard, log, onOutage });
        }),
      },
    );
    return upstream;
  };
}

/** One URL to ask, and what is known of it. */
interface EndpointPlace extends Partial<Omit<EndpointConfig, 'url' | 'credentials'>> {
  readonly url: string;
  readonly forwardsCredentials: boolean;
  readonly isConfigured: boolean;
}

function placesOf(
  name: string,
  settings: UpstreamConfig | undefined,
  mirrors: readonly EndpointConfig[],
): EndpointPlace[] {
  if (settings === undefined) {
    return [
      ...mirrors.map((mirror) => ({
        ...mirror,
        forwardsCredentials: mirror.credentials === 'forward',
        isConfigured: true,
      })),
      { url: defaultUpstreamUrl(name), forwardsCredentials: true, isConfigured: false },
    ];
  }
  const { endpoints } = settings;
  const all = endpoints.length > 0 ? endpoints : [settings];
  return all.map((endpoint) => ({
    ...endpoint,
    forwardsCredentials:
      endpoint.credentials === 'auto'
        ? all.length === 1 || isOwnHost(name, endpoint.url)
        : endpoint.credentials === 'forward',
    isConfigured: true,
  }));
}

/** Whether a URL is at the registry itself, by the name under which images know it. */
function isOwnHost(name: string, url: string): boolean {
  const { host, protocol } = new URL(url);
  return host === new URL(defaultUpstreamUrl(name, protocol === 'http:')).host;
}

function endpointAt(
  place: EndpointPlace,
  { name, budgets, limits }: Pick<Config['registry'], 'budgets' | 'limits'> & { name: string },
  dependencies: {
    readonly guard: AddressGuard;
    readonly log: Logger;
    readonly onOutage: (cause: string) => void;
  },
): Endpoint {
  const client = clientAt(place, { name, budgets, limits }, dependencies);
  const health = new UpstreamHealth(
    {
      proofGapMs: budgets.proofGapMs,
      probeIntervalMs: budgets.probeIntervalMs,
      probeTimeoutMs: budgets.outageAnswerMs / 2,
    },
    {
      client,
      log: dependencies.log,
      onChange: (outage) => {
        if (outage !== undefined) dependencies.onOutage(outage.cause.kind);
      },
    },
  );
  const tokenServices = new TokenServices(
    {
      probeTimeoutMs: budgets.outageAnswerMs * TOKEN_SERVICE_SHARE,
      proofGapMs: budgets.proofGapMs,
      aliveMs: TOKEN_SERVICE_ALIVE_MS,
      downMs: budgets.probeIntervalMs,
    },
    { client },
  );
  const { forwardsCredentials } = place;
  return new Endpoint({ budgets, forwardsCredentials }, { client, health, tokenServices });
}

/** How the registry asks each URL of an upstream, for those who ask once. The caller closes them. */
export function upstreamClients(
  name: string,
  config: Config['registry'],
): { readonly url: string; readonly client: UpstreamClient }[] {
  const settings = config.upstreams[name];
  return placesOf(name, settings, config.mirrors).map((place) => ({
    url: place.url,
    client: clientAt(place, { ...config, name }, { guard: guardAt(place, { ...config, name }) }),
  }));
}

function guardAt(
  { isConfigured, url }: EndpointPlace,
  { name, upstreams }: Pick<Config['registry'], 'upstreams'> & { name: string },
): AddressGuard {
  return guardOf(name, { upstreams }, isConfigured ? [url] : []);
}

function clientAt(
  place: EndpointPlace,
  { name, budgets, limits }: Pick<Config['registry'], 'budgets' | 'limits'> & { name: string },
  dependencies: { readonly guard: AddressGuard },
): UpstreamClient {
  return new UpstreamClient(
    {
      url: place.url,
      headers: headersOf(place),
      connections: limits.upstreamConnections,
      connectMs: budgets.connectMs,
      redirectRetryMs: budgets.probeIntervalMs,
      ...(place.namespace === true ? { namespace: name } : {}),
      ...given('ca', place.ca),
      ...given('clientCertificate', place.clientCertificate),
      ...given('clientKey', place.clientKey),
    },
    dependencies,
  );
}

function headersOf({ headers = {}, headersFile = '' }: EndpointPlace): Record<string, string> {
  const named = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]);
  const fromFile = headersFile === '' ? {} : readHeadersFile(headersFile);
  return { ...fromFile, ...(Object.fromEntries(named) as Record<string, string>) };
}

function given<K extends string>(key: K, value: string | undefined): Partial<Record<K, string>> {
  return value === undefined || value === '' ? {} : ({ [key]: value } as Record<K, string>);
}
