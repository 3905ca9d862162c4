import { Resolver } from 'node:dns/promises';
import type { Config } from '../config/schema.ts';
import { DnsMembership } from '../discovery/dns-membership.ts';
import { EndpointSliceMembership } from '../discovery/endpoint-slice-membership.ts';
import type { MemberList } from '../discovery/member-list.ts';
import { familyOf } from '../discovery/own-address.ts';
import { splitAddress } from '../rpc/address.ts';
import { API_CALLS } from '../kubernetes/api-calls.ts';
import { inClusterAccess, type ClusterAccess } from '../kubernetes/cluster-access.ts';
import { KubeApi } from '../kubernetes/kube-api.ts';
import { kubeconfigAccess } from '../kubernetes/kubeconfig-access.ts';
import { systemClock } from '../telemetry/clock.ts';
import type { Logger } from '../telemetry/logger.ts';

const CALL_TIMEOUT_MS = 10_000;
const DNS_TIMEOUT_MS = 2000;
const DNS_TRIES = 2;

/** What keeps the list of members up to date. */
export interface MemberFeed {
  start(): void;
  stop(): Promise<void>;
}

/** Begins to follow the source of members that the configuration names, other than a list in it. */
export function startFeed(
  members: Config['agent']['members'],
  parts: {
    readonly listen: string;
    readonly list: MemberList;
    readonly log: Logger;
    readonly onTrouble: (kind: string) => void;
  },
): MemberFeed {
  const { listen, list, log, onTrouble } = parts;
  const family = familyOf(listen);
  const common = { list, log, clock: systemClock };
  if (members.source === 'dns') {
    const createResolver = (): Resolver =>
      new Resolver({ timeout: DNS_TIMEOUT_MS, tries: DNS_TRIES });
    const feed = new DnsMembership(
      { ...members.dns, family },
      { ...common, createResolver, onTrouble: () => onTrouble('dns') },
    );
    feed.start();
    return feed;
  }
  const { namespace, service, kubeconfig } = members.kubernetes;
  const connect = (): Promise<ClusterAccess> =>
    kubeconfig === '' ? inClusterAccess() : kubeconfigAccess(kubeconfig);
  const api = new KubeApi({ timeoutMs: CALL_TIMEOUT_MS }, { connect, calls: API_CALLS.agent });
  const { port: defaultPort } = splitAddress(listen);
  const feed = new EndpointSliceMembership(
    { namespace, service, family, defaultPort },
    { ...common, api, random: Math.random, onTrouble },
  );
  feed.start();
  return feed;
}
