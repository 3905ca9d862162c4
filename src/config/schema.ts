import { agentSection, storeBytes } from './agent-schema.ts';
import type { SettingValue } from './setting.ts';
import { bytes, choice, count, list, map } from './setting.ts';
import { milliseconds, section, text } from './setting.ts';
import { endpointSection, policySection, upstreamSection } from './upstream-schema.ts';

const kib = 1024;
const mib = 1024 * kib;
const gib = 1024 * mib;

const nodeSection = section('The machine that this process runs on.', {
  name: text({
    default: '',
    computedDefault: 'hostName',
    maxLength: 253,
    description: 'Name under which other nodes and the logs know this one.',
  }),
  stateDirectory: text({
    default: '/var/lib/salvor',
    format: 'absolutePath',
    description:
      'Directory for what must outlive a restart. Written by the agent and by `salvor hosts`.',
  }),
  wiredPercent: count(
    100,
    'Share of the nodes whose containerd is to ask Salvor, chosen by their names. `salvor hosts` leaves ' +
      'the others as they are, and nobody is told that their pulls go past Salvor.',
    { minimum: 0, maximum: 100 },
  ),
  image: text({
    default: '',
    maxLength: 1024,
    description:
      'The image that Salvor runs from, for `salvor doctor` to see whether it is whole on the node. ' +
      'Empty: from none.',
  }),
});

const logSection = section('What is written to standard output, one JSON object a line.', {
  level: choice(
    ['info', 'debug', 'warn', 'error', 'silent'],
    'Least important line that is written.',
    { reloadable: true },
  ),
});

const registryLimits = section('Bounds of the registry.', {
  maxStreams: count(512, 'Requests served at a time.', { maximum: 65_536 }),
  maxIdleConnections: count(
    1024,
    'Connections on which no request runs. When there is one too many, the oldest is ended.',
    { minimum: 16, maximum: 65_536 },
  ),
  maxManifestBytes: bytes(8 * mib, 'Largest manifest that is accepted.', {
    minimum: 64 * kib,
    maximum: 256 * mib,
  }),
  manifestCacheBytes: bytes(32 * mib, 'Memory for manifests, by digest.', {
    minimum: 0,
    maximum: 16 * gib,
  }),
  inFlightBytes: bytes(
    256 * mib,
    'Memory for bytes on their way to clients: 512 KiB for each blob that is being streamed, small ' +
      'blobs and manifests in full. What would not fit is answered with 503 at once.',
    { minimum: 16 * mib, maximum: 64 * gib },
  ),
  maxHeaderBytes: bytes(16 * kib, "Largest request header, all of a request's together.", {
    minimum: 4 * kib,
    maximum: mib,
  }),
  upstreamConnections: count(128, 'Connections to each upstream host.', { maximum: 4096 }),
  shutdownMs: milliseconds(20_000, 'How long running pulls may take to end on shutdown.', {
    minimum: 0,
    maximum: 3_600_000,
  }),
  clientStallMs: milliseconds(60_000, 'How long a client may take nothing before it is dropped.'),
});

const registryBudgets = section('How long the registry waits, and for what.', {
  connectMs: milliseconds(3000, 'For a connection to an upstream, TLS included.'),
  hedgeMs: milliseconds(400, 'For the upstream before a node that holds the content is asked.'),
  peerHeadersMs: milliseconds(2000, 'For an answer while some node is known to hold the content.'),
  outageAnswerMs: milliseconds(
    2000,
    'Until 503 while the upstream is down: nodes that give no answer are waited for so long.',
  ),
  upstreamHeadersMs: milliseconds(
    25_000,
    'For the headers of a slow but healthy upstream; containerd gives up after 30 s.',
  ),
  stallMs: milliseconds(5000, 'Without a byte of a body before another source continues it.'),
  locateMs: milliseconds(1000, 'For the agent to name the nodes that hold something.'),
  proofGapMs: milliseconds(300, 'Least time between two failures that together prove an outage.', {
    minimum: 0,
  }),
  probeIntervalMs: milliseconds(3000, 'Between looks at an upstream that is down.'),
});

const registrySection = section('The OCI registry that the container runtime asks.', {
  listen: text({
    default: '127.0.0.1:7480',
    minLength: 1,
    format: 'address',
    description: 'Address of the registry API.',
  }),
  admin: text({
    default: '127.0.0.1:7481',
    format: 'address',
    description: 'Address of /metrics, /healthz and /readyz. Empty: none.',
  }),
  agentSocket: text({
    default: '/run/salvor/agent.sock',
    format: 'absolutePath',
    description: "Unix socket of this node's agent. Empty: no agent, a plain mirror.",
  }),
  proveSocket: text({
    default: '/run/salvor/registry.sock',
    format: 'absolutePath',
    description:
      'Unix socket on which `salvor report --prove` pulls as a new node would in an outage of ' +
      'every upstream. For its user and group alone. Empty, or without an agent: none.',
  }),
  readyAfter: list(text({ default: '', format: 'registryHost', description: 'A registry.' }), {
    default: [],
    reloadable: true,
    description:
      'Registries that must have answered once since the start before /readyz says ready, so that ' +
      'an update of all nodes waits while one is down. Ready for good then.',
  }),
  defaultUpstream: text({
    default: '',
    format: 'registryHost',
    reloadable: true,
    description:
      'Upstream of requests that name none, such as docker.io. Empty: such requests get 404.',
  }),
  allow: list(text({ default: '', format: 'hostPattern', description: 'A host pattern.' }), {
    default: ['*'],
    reloadable: true,
    description: 'Upstreams that may be asked: hosts, or patterns such as *.example.com.',
  }),
  deny: list(text({ default: '', format: 'hostPattern', description: 'A host pattern.' }), {
    default: [],
    reloadable: true,
    description: 'Upstreams that may not be asked, even where allow matches.',
  }),
  upstreams: map(upstreamSection, {
    keyFormat: 'registryHost',
    reloadable: true,
    description: 'What is special about an upstream, by its host as image names write it.',
  }),
  mirrors: list(endpointSection, {
    default: [],
    reloadable: true,
    description:
      'URLs that are asked before every registry that upstreams does not describe, such as a ' +
      "company's cache of all registries.",
  }),
  hostsFile: text({
    default: '',
    format: 'absolutePath',
    computedDefault: 'hostsFile',
    description:
      "JSON file of more mirrors and upstreams, which `salvor hosts` makes of containerd's " +
      'hosts.toml. What is configured otherwise is stronger. It need not exist.',
  }),
  policies: list(policySection, {
    default: [],
    reloadable: true,
    description: 'What holds for which repositories; the first that matches decides.',
  }),
  limits: registryLimits,
  budgets: registryBudgets,
});

const tlsSection = section('Mutual TLS between nodes.', {
  mode: choice(
    ['mutual', 'off'],
    'Both ends prove who they are, or neither does; off is for one machine only.',
  ),
  ca: text({
    default: '',
    format: 'absolutePath',
    description: 'PEM file of the authority that signs nodes.',
  }),
  certificate: text({
    default: '',
    format: 'absolutePath',
    description: "PEM file of this node's certificate.",
  }),
  key: text({
    default: '',
    format: 'absolutePath',
    description: 'PEM file of its private key.',
  }),
});

const startSection = section('`salvor start`: registry and agent in one process.', {
  listen: text({
    default: '127.0.0.1:7480',
    minLength: 1,
    format: 'address',
    description: 'Address of the registry API.',
  }),
  admin: text({
    default: '127.0.0.1:7481',
    format: 'address',
    description: 'Address of /metrics, /healthz and /readyz. Empty: none.',
  }),
  store: section('What is kept of everything that passed through.', {
    path: text({
      default: '',
      format: 'absolutePath',
      computedDefault: 'dataHome',
      description: 'Directory of the OCI image layout; made if missing.',
    }),
    maxSizeBytes: storeBytes,
  }),
});

const watchdogSection = section('Ends a process that stands still, so that pulls go elsewhere.', {
  timeoutMs: milliseconds(5000, 'How long the event loop may stand still. 0: no watchdog.', {
    minimum: 0,
    maximum: 3_600_000,
  }),
});

/**
 * Every setting of every command: type, unit, default, bounds and meaning. Files, environment
 * variables, flags, `--help` and docs/configuration.md all follow from it.
 */
export const configSchema = section('The configuration of Salvor.', {
  node: nodeSection,
  log: logSection,
  registry: registrySection,
  agent: agentSection,
  tls: tlsSection,
  start: startSection,
  watchdog: watchdogSection,
});

/** The effective configuration: every key present, nothing can be changed. */
export type Config = SettingValue<typeof configSchema>;
export type UpstreamConfig = SettingValue<typeof upstreamSection>;
export type EndpointConfig = SettingValue<typeof endpointSection>;
