import type { Facts } from './facts.ts';
import { finding, type Finding } from './finding.ts';

const STALE_MS = 3_600_000;
const MAX_SKEW_MS = 60_000;

/** Whether the agent knows the other nodes. */
export function checkMembers({
  members,
  settings,
  nowMs,
}: Pick<Facts, 'members' | 'settings' | 'nowMs'>): Finding[] {
  const { source, count, confirmedAtMs, trouble, hasSelf } = members;
  const found: Finding[] = [];
  const look = source.startsWith('kubernetes')
    ? `kubectl get endpointslices, and the rights of the agent (${source})`
    : 'agent.members in the configuration';
  if (count === 0) found.push(finding('members-empty', `no other node in ${source}`, look));
  if (hasSelf === false) {
    const what = `${settings.nodeName} is not in ${source}`;
    found.push(finding('members-without-self', what, look));
  }
  if (trouble !== undefined) {
    found.push(finding('members-source-fails', `${source}: ${trouble}`, look));
  } else if (source !== 'static' && nowMs - (confirmedAtMs ?? 0) > STALE_MS) {
    const since = confirmedAtMs === undefined ? 'ever' : new Date(confirmedAtMs).toISOString();
    found.push(finding('members-stale', `${source} has not been heard since ${since}`, look));
  }
  return found;
}

/** Whether nodes reach each other, both ways. */
export function checkReach({ reach, settings }: Pick<Facts, 'reach' | 'settings'>): Finding[] {
  const open =
    'open the port of agents (agent.listen) between nodes, and compare their certificates';
  const found = reach.own.members
    .filter(({ failure }) => failure !== '')
    .map(({ node, address, failure }) =>
      finding('member-unreachable', `${node} at ${address}: ${failure}`, open),
    );
  for (const { node, address, isOld, reach: answer, failure } of reach.others) {
    const isReached = reach.own.members.some(
      (member) => member.node === node && member.failure === '',
    );
    if (!isReached) continue;
    if (isOld) {
      const what = `${node} was reached from here only`;
      found.push(finding('members-one-way', what, `update the agent on ${node}`));
      continue;
    }
    if (answer === undefined) {
      found.push(finding('member-unreachable', `${node} at ${address}: ${failure}`, open));
      continue;
    }
    const back = answer.members.find((member) => member.node === settings.nodeName);
    if (back === undefined) {
      const what = `${settings.nodeName} is not among the members of ${node}`;
      found.push(finding('member-does-not-know', what, `agent.members on ${node}`));
    } else if (back.failure !== '') {
      const what = `${node} cannot ask ${settings.nodeName} at ${back.address}: ${back.failure}`;
      found.push(finding('member-cannot-reach-back', what, open));
    }
    if (reach.isCluster) found.push(...checkFarNode(answer, settings.nodeName, open));
  }
  return found;
}

function checkFarNode(
  answer: Facts['reach']['own'],
  selfName: string,
  open: string,
): readonly Finding[] {
  const cut = answer.members
    .filter(({ node, failure }) => failure !== '' && node !== selfName)
    .map(({ node, address, failure }) =>
      finding(
        'members-cut-off',
        `${answer.node} cannot ask ${node} at ${address}: ${failure}`,
        open,
      ),
    );
  if (answer.pullsBypassed === 0) return cut;
  const { pullsBypassed: bypassed, pullsSeen: seen } = answer;
  const what = `${answer.node}: ${bypassed} of ${bypassed + seen} pulls bypassed Salvor in the last hour`;
  return [...cut, finding('pulls-bypassed', what, `salvor doctor on ${answer.node}`)];
}

/** Whether the clocks of nodes agree. */
export function checkClock({ reach }: Pick<Facts, 'reach'>): Finding[] {
  const skewed = reach.others.filter(({ skewMs }) => Math.abs(skewMs ?? 0) > MAX_SKEW_MS);
  return skewed.map(({ node, skewMs = 0 }) => {
    const what = `the clock of ${node} is ${Math.round(Math.abs(skewMs) / 1000)} s ${skewMs > 0 ? 'ahead of' : 'behind'} this one`;
    return finding('clock-skewed', what, 'timedatectl on both nodes; start an NTP client');
  });
}
