import { SELF_TEST_REGISTRY } from '../oci/self-test.ts';
import { AssumedOutage } from './proof/assumed-outage.ts';
import type { ServedUpstreams } from './registry-server.ts';

/** Adds the registry of self-tests: one that is dead, whatever the others are. */
export function withSelfTest(upstreams: ServedUpstreams): ServedUpstreams {
  return {
    get: (name) =>
      name === SELF_TEST_REGISTRY
        ? new AssumedOutage({ name, peers: 'fallback' })
        : upstreams.get(name),
    hold: (upstream) =>
      upstream instanceof AssumedOutage ? () => undefined : upstreams.hold(upstream),
  };
}
