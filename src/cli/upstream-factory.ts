import { defaultUpstreamUrl } from '../config/load.ts';
import type { Config, UpstreamConfig } from '../config/schema.ts';
import { AddressGuard } from '../registry/upstream/address-guard.ts';
import type { RegistryMetrics } from '../registry/registry-metrics.ts';
import { TokenServices } from '../registry/upstream/token-service.ts';
import { UpstreamClient } from '../registry/upstream/upstream-client.ts';
import { UpstreamHealth } from '../registry/upstream/upstream-health.ts';
import { Upstream } from '../registry/upstream/upstream.ts';
import type { Logger } from '../telemetry/logger.ts';

/** How much of the time for an answer in an outage a token service may take. */
const TOKEN_SERVICE_SHARE = 0.75;
/** How long a token service that answered is taken to be alive, milliseconds. */
const TOKEN_SERVICE_ALIVE_MS = 10_000;

/**
 * Makes upstreams by name, as the configuration describes them; one that it does not mention is
 * the registry's own host over https.
 */
export function upstreamFactory(
  config: Config['registry'],
  dependencies: { readonly log: Logger; readonly metrics: RegistryMetrics },
): (name: string) => Upstream {
  const { budgets, limits } = config;
  return (name) => {
    const settings = config.upstreams[name];
    const url = settings?.url ?? defaultUpstreamUrl(name);
    const guard = new AddressGuard(allowedAddresses(url, settings));
    const client = new UpstreamClient(
      {
        url,
        connections: limits.upstreamConnections,
        connectMs: budgets.connectMs,
        redirectRetryMs: budgets.probeIntervalMs,
        ...given('ca', settings?.ca),
        ...given('clientCertificate', settings?.clientCertificate),
        ...given('clientKey', settings?.clientKey),
      },
      { guard },
    );
    const health = new UpstreamHealth(
      {
        proofGapMs: budgets.proofGapMs,
        probeIntervalMs: budgets.probeIntervalMs,
        probeTimeoutMs: budgets.outageAnswerMs / 2,
      },
      {
        client,
        log: dependencies.log.child({ registry: name }),
        onChange: (outage) => dependencies.metrics.outages.inc(outage === undefined ? -1 : 1),
      },
    );
    const peers = settings?.peers ?? 'fallback';
    const tokenServices = new TokenServices(
      {
        probeTimeoutMs: budgets.outageAnswerMs * TOKEN_SERVICE_SHARE,
        proofGapMs: budgets.proofGapMs,
        aliveMs: TOKEN_SERVICE_ALIVE_MS,
        downMs: budgets.probeIntervalMs,
      },
      { client },
    );
    return new Upstream({ name, peers, budgets }, { client, health, tokenServices });
  };
}

// An address that the configuration itself names is meant to be dialled.
function allowedAddresses(url: string, settings: UpstreamConfig | undefined): readonly string[] {
  if (settings === undefined) return [];
  const { hostname } = new URL(url);
  const literal = AddressGuard.networkOf(hostname);
  return [...settings.allowAddresses, ...literal];
}

function given<K extends string>(key: K, value: string | undefined): Partial<Record<K, string>> {
  return value === undefined || value === '' ? {} : ({ [key]: value } as Record<K, string>);
}
