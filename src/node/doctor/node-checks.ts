import type { Facts } from './facts.ts';
import { finding, type Finding } from './finding.ts';

const DAY_MS = 86_400_000;
const EXPIRY_MS = 14 * DAY_MS;
/** Certificates that are renewed every few days are late only near their end. */
const EXPIRY_SHARE = 0.2;
/** kubelet removes images from 85 % on, and evicts Pods when 5 to 15 % are left. */
const NEARLY_FULL_PERCENT = 85;
const FULL_PERCENT = 95;
const MIN_STATE_BYTES = 64 * 1024 * 1024;

/** Whether a pull that was made to see went through Salvor. */
export function checkCanary({ canary, settings }: Pick<Facts, 'canary' | 'settings'>): Finding[] {
  if (canary.isAsked) return [];
  const what = `a pull of ${canary.image} was not seen at ${settings.mirrorUrl}: ${canary.answer}`;
  const fix = 'see the other findings; `salvor hosts show` tells which registries are joined';
  return [finding('mirror-not-asked', what, fix)];
}

/** Whether Salvor answers where containerd asks. */
export function checkRegistry({
  registry,
  settings,
}: Pick<Facts, 'registry' | 'settings'>): Finding[] {
  if ('version' in registry) {
    if (registry.adminFailure === '') return [];
    const fix = 'the same registry.admin for the registry, the agent and this command';
    return [finding('registry-admin-unreachable', registry.adminFailure, fix)];
  }
  const what = `${settings.mirrorUrl}: ${registry.failure}`;
  return [
    registry.isForeign
      ? finding('registry-foreign', what, 'end the other program, or change registry.listen')
      : finding('registry-unreachable', what, 'start `salvor registry` on this node'),
  ];
}

/** Whether the agent answers on its socket. */
export function checkAgent({ agent }: Pick<Facts, 'agent'>): Finding[] {
  if (agent.failure === '') return [];
  return [finding('agent-unreachable', agent.failure, 'start `salvor agent` on this node')];
}

/** Whether nodes may answer at all. */
export function checkPolicies({ settings }: Pick<Facts, 'settings'>): Finding[] {
  const [first] = settings.policies;
  const isOff =
    first !== undefined && first.mode !== 'serve' && ['*', '*/*', '**'].includes(first.match);
  if (!isOff) return [];
  const what = `registry.policies begins with match: "${first.match}", mode: ${first.mode}`;
  return [finding('policies-off', what, 'mode: serve in registry.policies')];
}

/** Whether other nodes accept this one, and for how long. */
export function checkIdentity({ identity, nowMs }: Pick<Facts, 'identity' | 'nowMs'>): Finding[] {
  const renew = 'salvor certs, or let cert-manager renew the Secret';
  if ('failure' in identity) return [finding('identity-unusable', identity.failure, renew)];
  const { leaf, roles, authorities } = identity.facts;
  const found: Finding[] = [];
  const missing = (['agent', 'registry'] as const).filter((role) => !roles.has(role));
  if (missing.length > 0) {
    const names = missing.map((role) => `${role}.salvor.internal`).join(' and ');
    const what = `${leaf.subject} does not name ${names}`;
    found.push(
      finding('identity-role-missing', what, `add ${names} to the names of the certificate`),
    );
  }
  const lastAuthority = authorities.toSorted((a, b) => b.notAfterMs - a.notAfterMs).slice(0, 1);
  for (const each of [leaf, ...lastAuthority]) {
    const leftMs = each.notAfterMs - nowMs;
    const lifeMs = each.notAfterMs - each.notBeforeMs;
    if (leftMs > Math.min(EXPIRY_MS, lifeMs * EXPIRY_SHARE)) continue;
    const what = `${each.subject} ends ${new Date(each.notAfterMs).toISOString()}`;
    found.push(finding('identity-expires', what, renew));
  }
  return found;
}

/** Whether there is room for images and for what Salvor remembers. */
export function checkDisks({ disks }: Pick<Facts, 'disks'>): Finding[] {
  const { stateFailure, statePath } = disks;
  const found: Finding[] = [];
  if (stateFailure !== '') {
    const fix = `install -d -m 0755 ${statePath}, for the user of the agent`;
    found.push(finding('state-directory', `${statePath}: ${stateFailure}`, fix));
  }
  for (const { of, path, usedPercent, availableBytes } of disks.all) {
    const what = `${path} is ${usedPercent.toFixed(0)} % full, ${Math.floor(availableBytes / 1024 ** 2)} MiB are left`;
    const fix = `free space on the disk of ${path}`;
    const isShort = availableBytes < MIN_STATE_BYTES;
    if (isShort || (of === 'content' && usedPercent >= FULL_PERCENT)) {
      found.push(finding('disk-full', what, fix));
    } else if (of === 'content' && usedPercent >= NEARLY_FULL_PERCENT) {
      found.push(finding('disk-nearly-full', what, fix));
    }
  }
  return found;
}

/** Whether registries can be asked from here. */
export function checkUpstreams({ upstreams }: Pick<Facts, 'upstreams'>): Finding[] {
  return upstreams.flatMap(({ registry, url, failure, outage }) => {
    if (outage !== undefined) {
      const what = `${registry}: the registry has proof of an outage: ${outage}`;
      return [finding('upstream-outage', what, `mend ${registry}; it is noticed by itself`)];
    }
    if (failure === '') return [];
    const fix =
      `curl -v ${url}/v2/ on this node; if only a proxy leads there, Salvor needs HTTPS_PROXY, ` +
      `if it has an authority of its own, set registry.upstreams."${registry}".ca`;
    return [finding('upstream-unreachable', `${registry}: ${failure}`, fix)];
  });
}

/** Whether containerd would look for Salvor behind a proxy. It asks loopback itself, always. */
export function checkProxy({ proxy, settings }: Pick<Facts, 'proxy' | 'settings'>): Finding[] {
  const { hostname } = new URL(settings.mirrorUrl);
  const isLoopback = ['localhost', '[::1]'].includes(hostname) || hostname.startsWith('127.');
  if (proxy.url === '' || isLoopback || isExempt(hostname, proxy.noProxy)) return [];
  const what = `containerd has the proxy ${withoutUser(proxy.url)} and NO_PROXY="${proxy.noProxy}"`;
  const fix = `add ${hostname} to NO_PROXY in containerd's unit, then restart it`;
  return [finding('proxy-catches-mirror', what, fix)];
}

function isExempt(hostname: string, noProxy: string): boolean {
  return noProxy.split(',').some((each) => {
    const name = each.trim();
    const suffix = name.startsWith('.') ? name : `.${name}`;
    // Networks are left to people: better no finding than a wrong one.
    return name === '*' || name === hostname || name.includes('/') || hostname.endsWith(suffix);
  });
}

function withoutUser(text: string): string {
  return text.replace(/\/\/[^/@]*@/, '//');
}

/** Whether the Pod of Salvor could start again without a registry. */
export function checkOwnImage({ ownImage }: Pick<Facts, 'ownImage'>): Finding[] {
  const { name, missing } = ownImage;
  if (missing.length === 0) return [];
  const what = `${name}: ${missing.slice(0, 3).join(', ')} not in the content store`;
  return [finding('own-image-missing', what, `crictl pull ${name}, and pin it`)];
}

/** Whether this node is left out on purpose. */
export function checkShare({ settings }: Pick<Facts, 'settings'>): Finding[] {
  const { isWiringExpected, nodeName, wiredPercent } = settings;
  if (isWiringExpected) return [];
  const what = `${nodeName} is not among the ${wiredPercent} % of the nodes that are to ask Salvor`;
  return [finding('node-left-out', what, 'node.wiredPercent, in the chart hosts.sharePercent')];
}

/** Whether pulls went past Salvor lately. */
export function checkPulls({ pulls }: Pick<Facts, 'pulls'>): Finding[] {
  const { bypassed, seen, unknown = 0 } = pulls;
  const found: Finding[] = [];
  if (unknown > 0) {
    const what = `the agent cannot tell of ${unknown} pulls of the last hour whether they bypassed Salvor`;
    const fix = 'let the agent reach registry.admin: the same address for registry and agent';
    found.push(finding('pulls-unknown', what, fix));
  }
  if (bypassed === 0) return found;
  const [example] = pulls.examples;
  const which = example === undefined ? '' : `, such as ${example.image}`;
  const what = `${bypassed} of ${bypassed + seen} pulls bypassed Salvor in the last hour${which}`;
  const fix = example?.reason ?? 'see the log of the agent';
  return [...found, finding('pulls-bypassed', what, fix)];
}
