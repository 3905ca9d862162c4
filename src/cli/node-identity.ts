import { readFile } from 'node:fs/promises';
import { Counter, Gauge, type Registry } from 'prom-client';
import { credentials, type ChannelCredentials } from '@grpc/grpc-js';
import type { Config } from '../config/schema.ts';
import { checkIdentity, type IdentityFacts } from '../rpc/identity-facts.ts';
import { MutualChannelCredentials } from '../rpc/channel-credentials.ts';
import { readIdentity, type Identity, type Renewable, type Role } from '../rpc/identity.ts';
import { ServerIdentity } from '../rpc/server-identity.ts';
import { systemClock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';
import { Seldom } from '../telemetry/seldom.ts';
import { ConfigWatch } from './config-watch.ts';
import type { Service } from './service-group.ts';

/** Between two looks at the files; a change counts after two, milliseconds. */
const LOOK_INTERVAL_MS = 2000;
const EARLY_END_QUIET_MS = 60_000;
const MAX_ADDRESSES = 1000;

/** The two ends of the connections between nodes. */
export interface NodeCredentials {
  /** Undefined where there is no TLS. */
  readonly server: ServerIdentity | undefined;
  readonly channel: ChannelCredentials;
}

/** The same, and what keeps them up to date. */
export interface NodeIdentity extends NodeCredentials {
  readonly services: readonly Service[];
}

type IdentityFiles = { readonly [Part in keyof Identity]: string } | { readonly failure: string };

/** Credentials of a process that talks to itself. */
export function plainCredentials(): NodeCredentials {
  return { server: undefined, channel: credentials.createInsecure() };
}

/**
 * This process's identity, taken from its files again whenever they have changed. Open connections
 * go on with the one that they were made with; files that are of no use change nothing.
 *
 * @param dependencies.role as what the process appears; its certificate should say so
 * @throws when a file cannot be read at the start, or is no identity at all
 */
export async function nodeIdentity(
  config: Config['tls'],
  dependencies: { readonly role: Role; readonly log: Logger; readonly metrics: Registry },
): Promise<NodeIdentity> {
  if (config.mode === 'off') return { ...plainCredentials(), services: [] };
  const { role, log } = dependencies;
  const metrics = createIdentityMetrics(dependencies.metrics);
  const identity = await readIdentity(config);
  let facts = atStart(identity, { role, log });
  metrics.show(facts);
  const seldom = new Seldom({ intervalMs: EARLY_END_QUIET_MS, maxKeys: MAX_ADDRESSES });
  const onEarlyEnd = (address: string): void => {
    if (!seldom.isDue(address)) return;
    const { subject, issuer } = facts?.leaf ?? {};
    log.warn(
      { address, subject, issuer },
      'an agent ended the connection at once: it may not accept the certificate of this node',
    );
  };
  const server = new ServerIdentity(identity);
  const channel = new MutualChannelCredentials(identity, { onEarlyEnd });
  const take = async (files: IdentityFiles): Promise<void> => {
    try {
      facts = renew(files, [server, channel], { role });
      metrics.show(facts);
      metrics.recordReload(true);
      log.info(describe(facts), 'identity reloaded, new connections use it');
    } catch (error) {
      metrics.recordReload(false);
      const reason = error instanceof Error ? error.message : String(error);
      log.error({ files: config, reason }, 'Cannot reload the identity, the old one stays');
    }
  };
  const watch = new ConfigWatch<IdentityFiles>(
    { intervalMs: LOOK_INTERVAL_MS, content: textsOf(identity) },
    { read: () => readFiles(config), take, clock: systemClock },
  );
  const service: Service = {
    name: 'identity',
    start: async () => watch.start(),
    stop: () => watch.stop(),
  };
  return { server, channel, services: [service] };
}

/** What is wrong at the start is said and no more: it may be put right while the process runs. */
function atStart(
  identity: Identity,
  { role, log }: { readonly role: Role; readonly log: Logger },
): IdentityFacts | undefined {
  try {
    const facts = checkIdentity(identity, { nowMs: Date.now() });
    requireRole(facts, role);
    log.info(describe(facts), 'identity read');
    return facts;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    log.error({ reason }, 'the identity is of no use, other nodes will refuse this one');
    return undefined;
  }
}

/** @throws when it is of no use; nothing has changed then */
function renew(
  files: IdentityFiles,
  all: readonly Renewable[],
  { role }: { readonly role: Role },
): IdentityFacts {
  if ('failure' in files) throw new Error(files.failure);
  const identity = {
    ca: Buffer.from(files.ca),
    certificate: Buffer.from(files.certificate),
    key: Buffer.from(files.key),
  };
  const facts = checkIdentity(identity, { nowMs: Date.now() });
  requireRole(facts, role);
  for (const each of all) each.renew(identity);
  return facts;
}

function requireRole({ leaf, roles }: IdentityFacts, role: Role): void {
  if (roles.has(role)) return;
  const named = [...roles].join(' and ');
  throw new Error(
    `Cannot use the certificate ${leaf.subject}: it is for the role ${named}, not ${role}`,
  );
}

async function readFiles(paths: Config['tls']): Promise<IdentityFiles> {
  try {
    const [ca, certificate, key] = await Promise.all(
      [paths.ca, paths.certificate, paths.key].map((path) => readFile(path, 'utf8')),
    );
    return { ca, certificate, key } as IdentityFiles;
  } catch (error) {
    return { failure: error instanceof Error ? error.message : String(error) };
  }
}

function textsOf({ ca, certificate, key }: Identity): IdentityFiles {
  return { ca: ca.toString(), certificate: certificate.toString(), key: key.toString() };
}

function describe({ leaf, roles, authorities }: IdentityFacts): Record<string, unknown> {
  return {
    subject: leaf.subject,
    issuer: leaf.issuer,
    notAfter: new Date(leaf.notAfterMs),
    roles: [...roles],
    authorities: authorities.map(({ subject }) => subject),
  };
}

/** Registers the metrics of this process's identity. */
export function createIdentityMetrics(register: Registry) {
  const registers = [register];
  const leaf = new Gauge({
    name: 'salvor_tls_certificate_not_after_timestamp_seconds',
    help: "When this process's certificate ends, in seconds since the epoch; 0: it is of no use.",
    registers,
  });
  const authority = new Gauge({
    name: 'salvor_tls_authority_not_after_timestamp_seconds',
    help: 'When the last authority that this process trusts ends, in seconds since the epoch; 0: none.',
    registers,
  });
  const authorities = new Gauge({
    name: 'salvor_tls_authorities',
    help: 'Authorities that this process trusts; two while one takes the place of the other.',
    registers,
  });
  const reloads = new Counter({
    name: 'salvor_tls_reloads_total',
    help: 'Changed identities that were taken over while running, or refused.',
    labelNames: ['result'],
    registers,
  });
  const isGood = new Gauge({
    name: 'salvor_tls_last_reload_successful',
    help: 'Whether the files of the identity were good when they were last read: 1, else 0.',
    registers,
  });
  for (const result of ['ok', 'failed']) reloads.inc({ result }, 0);
  return {
    show: (facts: IdentityFacts | undefined): void => {
      isGood.set(facts === undefined ? 0 : 1);
      leaf.set((facts?.leaf.notAfterMs ?? 0) / 1000);
      const ends = facts?.authorities.map(({ notAfterMs }) => notAfterMs) ?? [];
      authority.set(Math.max(0, ...ends) / 1000);
      authorities.set(ends.length);
    },
    recordReload: (isOk: boolean): void => {
      reloads.inc({ result: isOk ? 'ok' : 'failed' });
      isGood.set(isOk ? 1 : 0);
    },
  };
}
