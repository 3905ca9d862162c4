import type { Facts } from '../../../../src/node/doctor/facts.ts';

/** Settings of a node that is in order. */
export function settings(changes: Partial<Facts['settings']> = {}): Facts['settings'] {
  return {
    nodeName: 'node-a',
    mirrorUrl: 'http://127.0.0.1:7480',
    isKeeperOff: false,
    isWiringExpected: true,
    wiredPercent: 100,
    policies: [],
    containerdConfig: '/etc/containerd/config.toml',
    ...changes,
  };
}
