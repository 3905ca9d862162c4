import type { Config } from '../config/schema.ts';
import type { Facts } from '../node/doctor/facts.ts';
import { upstreamClients } from './upstream-factory.ts';

const ANSWER_MS = 8000;
const PAGE_MS = 3000;

interface KnownUpstream {
  readonly registry: string;
  readonly state?: string;
  readonly reason?: string;
}

/**
 * Asks every registry that is configured, and those that the running registry knows, as Salvor
 * does: with their authorities, headers and the proxy of the environment.
 */
export async function gatherUpstreams(
  config: Config['registry'],
  { signal }: { readonly signal: AbortSignal },
): Promise<Facts['upstreams']> {
  const known = await knownUpstreams(config.admin, signal);
  const names = new Set([
    ...Object.keys(config.upstreams),
    ...known.filter(({ state }) => state !== 'unknown').map(({ registry }) => registry),
  ]);
  const found = await Promise.all(
    [...names].map(async (registry) => {
      const status = known.find((each) => each.registry === registry);
      const outage = status?.state === 'outage' ? (status.reason ?? 'no answer') : undefined;
      const answers = await askAll(registry, config, signal);
      return answers.map((answer) => ({
        registry,
        ...answer,
        ...(outage === undefined ? {} : { outage }),
      }));
    }),
  );
  return found.flat();
}

async function askAll(
  registry: string,
  config: Config['registry'],
  signal: AbortSignal,
): Promise<{ url: string; failure: string }[]> {
  let clients: ReturnType<typeof upstreamClients>;
  try {
    clients = upstreamClients(registry, config);
  } catch (error) {
    return [{ url: registry, failure: error instanceof Error ? error.message : String(error) }];
  }
  return Promise.all(
    clients.map(async ({ url, client }) => {
      try {
        const { body, status } = await client.send({
          method: 'GET',
          path: '/v2/',
          headers: {},
          headersTimeoutMs: ANSWER_MS,
          signal,
        });
        body.on('error', () => undefined);
        body.destroy();
        return { url, failure: status >= 500 ? `it answers ${status}` : '' };
      } catch (error) {
        signal.throwIfAborted();
        return { url, failure: error instanceof Error ? error.message : String(error) };
      } finally {
        await client.close();
      }
    }),
  );
}

/** What the running registry knows; nothing where it does not run, which another check says. */
async function knownUpstreams(
  admin: string,
  signal: AbortSignal,
): Promise<readonly KnownUpstream[]> {
  if (admin === '') return [];
  try {
    const response = await fetch(`http://${admin}/status`, {
      signal: AbortSignal.any([signal, AbortSignal.timeout(PAGE_MS)]),
    });
    return ((await response.json()) as { upstreams?: readonly KnownUpstream[] }).upstreams ?? [];
  } catch {
    signal.throwIfAborted();
    return [];
  }
}
