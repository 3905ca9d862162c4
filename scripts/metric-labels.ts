import type { BootstrapResult } from '../src/agent/bootstrap/bootstrap-metrics.ts';
import type { Damage } from '../src/agent/keeper/backfill-plan.ts';
import type { ReleaseReason } from '../src/agent/keeper/copy-choice.ts';
import type { FetchFailure } from '../src/agent/keeper/fetch-error.ts';
import type { RestoreFailure } from '../src/agent/keeper/restore-error.ts';
import type { Refusal } from '../src/agent/refused-connections.ts';
import type { V2Target } from '../src/oci/path.ts';
import type { AnswerDecision } from '../src/registry/answer.ts';
import type { SentBody } from '../src/registry/body-writer.ts';
import type { FallbackCause } from '../src/registry/fallback.ts';
import { OUTAGE_SIGNS } from '../src/registry/upstream/failure-kind.ts';
import type { Report } from '../src/report/report.ts';
import { Local, Peer } from '../src/rpc/gen/salvor/agent/v1/agent_pb.ts';

/** What a label can be, and what each value means. Open ones have a rule in place of values. */
export type LabelValues = Readonly<Record<string, string>> | { readonly rule: string };

const kinds = {
  manifest: 'a manifest or index, by tag or digest',
  blob: 'a config or layer',
  referrers: 'the referrers of a digest',
  tags: 'a list of tags: not offered',
  upload: 'a push: not offered',
  catalog: 'the catalog: not offered',
  base: '`/v2/` itself',
  invalid: 'a path or request that the API does not have',
} satisfies Record<V2Target['kind'] | 'invalid', string>;

const decisions = {
  upstream: 'the upstream gave it',
  peer: 'a node gave it',
  memory: 'this process had it in memory',
  offline_tag: 'a tag, by what the upstream last confirmed',
  refused_upstream: "the upstream's own refusal or challenge, passed on",
  missing: 'the upstream says there is no such thing: 404',
  unavailable: 'the upstream fails, and no node has it: 503',
  rate_limited: 'the upstream limits the rate, and no node has it: 503',
  forbidden_address: 'the upstream is at an address that is not allowed',
  busy: 'limits of this process: 503 at once',
  bypass: 'policy keeps Salvor out of it: 404, and containerd asks the upstream',
  not_allowed: '`registry.allow` and `registry.deny` keep the registry out',
  unsupported: 'something that Salvor does not offer',
  bad_request: 'names or digests that cannot be read',
  bad_range: 'a range that the blob does not have',
  bad_method: 'neither GET nor HEAD',
  unreadable: 'a request that is no HTTP, or too big',
  base: 'the answer to `/v2/`',
  self_test: 'a pull by which `salvor hosts` tries the registry out: 503 is right',
} satisfies Record<AnswerDecision, string>;

const ends = {
  complete: 'all of it was sent',
  cut: 'nobody could give the rest',
  wrong_bytes: 'the bytes were not those of the digest; the connection was broken off',
  client_gone: 'the client left',
  client_stalled: 'the client took nothing for too long',
} satisfies Record<SentBody['end'], string>;

const sources = {
  upstream: 'the registry',
  node: 'nodes',
  both: 'the registry first, nodes for the rest, or the other way round',
  memory: 'the memory of this process',
  none: 'nobody: answers of Salvor itself, errors included',
};

const causes = {
  refused: 'connections were refused',
  reset: 'connections were reset',
  dns: "the upstream's name was not resolved",
  tls: "the upstream's certificate or TLS was not accepted",
  timeout: 'no answer in time',
  proxy: 'the proxy before it could not be reached, or broke off',
  gateway: 'the proxy before it answers CONNECT with 500 or more: it does not reach it',
  local: 'this machine has no file descriptors, ports or memory left, or its firewall says no',
  server_error: 'a status of 500 or more',
  rate_limited: '429',
  token_service: 'its token service failed',
  bad_answer: 'an answer that makes no sense, or of another size or range than announced',
  cut: 'a body that ended before its end',
  stalled: 'a body that stood still',
  wrong_bytes: 'bytes that were not those of the digest',
  gone: '404 for what nodes have',
  circuit_open: 'not asked, since it failed a moment ago',
  forbidden_address: 'it is at an address that is not allowed',
  slow: 'a node was faster; nothing would have failed',
  other: 'anything else',
} satisfies Record<FallbackCause, string>;

const registry = {
  rule: '`docker.io` and those that `registry.upstreams` describes; all the others are `other`',
};
const status = { rule: 'the HTTP status' };

const damages = {
  missing: 'a layer that was thrown away after unpacking, or never came',
  lost: 'content that the store has a record of, and no file',
  corrupt: 'the bytes on disk are not those of the digest',
} satisfies Record<Damage, string>;

const failures = {
  nowhere: 'no node has it, and the upstream neither',
  needs_credentials: 'the upstream wants credentials, which a node does not have',
  upstream_down: 'the upstream cannot be reached, fails or asks to be left alone',
  holders_failed: 'nodes have it, and none could give it to the end',
  wrong_bytes: 'what came was not what the digest names',
  shared_file: 'another namespace of containerd holds the same wrong file, so that it stays',
  disk_pressure: 'it would fill the disk more than is allowed',
  disk_unknown: 'nobody knows how full the disk is',
  refused: 'the store has no room, or refuses',
  store: 'containerd cannot be reached',
  other: 'anything else; the log has it',
} satisfies Record<FetchFailure | RestoreFailure | 'store' | 'other', string>;

const releases = {
  copies: 'enough other nodes have a copy',
  budget: 'other images need the space more',
  policy: 'none is wanted any more',
  incomplete: 'it is no complete copy any more',
  disk_release: 'the disk fills up',
  disk_drop: 'the disk is almost full',
} satisfies Record<ReleaseReason, string>;

const refusals = {
  certificate: 'a certificate that is not accepted',
  no_certificate: 'no certificate at all',
  protocol: 'no TLS, or none of version 1.3',
  own_certificate: 'the other side does not accept ours',
  slow: 'TLS was not through in time',
  crowd: 'too many connections at once, most of them from the same host',
} satisfies Record<Refusal['reason'], string>;

const bootstrapResults = {
  manifest: 'a manifest or index was sent',
  blob: 'a config or layer, or the part of it that was asked for, was sent',
  base: 'the answer to `/v2/`',
  missing: 'the repository may be read, and this node does not have that of it: 404',
  not_allowed: 'a repository that may not be read, or of which this node has nothing: 404',
  wrong_role: "the client's certificate is for another role: 403",
  expired: "the client's certificate ended while it was connected: 403",
  busy: '`agent.bootstrap.maxRequests` are being answered already: 503 at once',
  store: 'the content store cannot be read: 503',
  unsupported: decisions.unsupported,
  bad_method: decisions.bad_method,
  bad_request: decisions.bad_request,
  bad_range: decisions.bad_range,
  unreadable: decisions.unreadable,
  failed: 'a mistake of Salvor; the log has it',
  cut: 'the store could not give the rest of a blob',
  wrong_bytes: ends.wrong_bytes,
  client_gone: ends.client_gone,
  client_stalled: ends.client_stalled,
} satisfies Record<BootstrapResult, string>;

const verdicts = {
  'not-servable': 'nodes could not serve it',
  'single-copy': 'one node alone could',
  survives: 'two or more could',
} satisfies Record<Report['images'][number]['verdict'], string>;

const memberStates = {
  answered: 'counted in the report',
  'too-old': 'an agent that does not know reports yet',
  'no-answer': 'away, or too slow',
} satisfies Record<Report['members'][number]['state'], string>;

const reloads = { ok: 'taken over', failed: 'refused, the old one stays' };

/** The values of every label of every metric of Salvor's own. */
export const metricLabels: Readonly<Record<string, Readonly<Record<string, LabelValues>>>> = {
  salvor_registry_requests_total: { kind: kinds, decision: decisions, status },
  salvor_registry_first_byte_seconds: { kind: kinds },
  salvor_registry_sent_bytes_total: { source: sources },
  salvor_registry_bodies_total: { end: ends },
  salvor_registry_upstream_outage: { registry },
  salvor_registry_upstream_outage_start_timestamp_seconds: { registry },
  salvor_registry_upstream_rate_limit_remaining: { registry },
  salvor_registry_upstream_outages_total: { registry, cause: only(causes, OUTAGE_SIGNS) },
  salvor_registry_saved_requests_total: { registry, kind: only(kinds, ['manifest', 'blob']) },
  salvor_registry_fallbacks_total: { cause: causes },
  salvor_registry_proof_requests_total: { kind: only(kinds, ['manifest', 'blob']), status },
  salvor_agent_calls_total: {
    method: {
      rule:
        `of other nodes: ${methodsOf(Peer)}; of the registry and the commands on this node: ` +
        methodsOf(Local),
    },
    code: { rule: 'a status of gRPC, such as `OK`, `NOT_FOUND`, `UNAVAILABLE`' },
  },
  salvor_agent_bootstrap_requests_total: { result: bootstrapResults },
  salvor_agent_refused_connections_total: { reason: refusals },
  salvor_agent_members_errors_total: {
    kind: {
      list: 'the list of EndpointSlices could not be had',
      watch: 'watching them broke off',
      expired: 'the watch was too old and began anew',
      dns: 'the name could not be resolved',
    },
  },
  salvor_agent_keeper_images_total: {
    result: {
      restored: 'references were put back',
      complete: 'nothing was missing',
      absent: 'its manifest is not in the store yet',
      unknown: 'no manifest lists the blob',
      failed: 'the store refused, or could not be reached',
    },
  },
  salvor_agent_backfill_left_blobs: { damage: damages },
  salvor_agent_backfill_left_bytes: { damage: damages },
  salvor_agent_backfill_restored_total: { damage: damages },
  salvor_agent_backfill_failures_total: { damage: damages, reason: failures },
  salvor_agent_copies_released_total: { reason: releases },
  salvor_report_images: { verdict: verdicts },
  salvor_report_members: { state: memberStates },
  salvor_tls_reloads_total: { result: reloads },
  salvor_config_reloads_total: { result: reloads },
  salvor_build_info: {
    version: { rule: 'of Salvor' },
    role: {
      registry: '`salvor registry`',
      agent: '`salvor agent`',
      start: '`salvor start`',
    },
    nodejs: { rule: 'the version of Node.js' },
  },
};

function only<K extends string>(
  values: Readonly<Record<K, string>>,
  some: Iterable<K>,
): Readonly<Record<string, string>> {
  return Object.fromEntries([...some].map((value) => [value, values[value]]));
}

function methodsOf(service: { readonly method: Readonly<Record<string, unknown>> }): string {
  return Object.keys(service.method)
    .map((name) => `\`${name}\``)
    .join(', ');
}
