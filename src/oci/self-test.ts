/**
 * The registry in whose name a registry of ours is tried out. There can be none of that name (RFC
 * 6761): its images are looked for on nodes as in an outage, and nothing is ever sent to it.
 */
export const SELF_TEST_REGISTRY = 'self-test.salvor.invalid';

/** Path and query of a pull that nobody can answer with anything but a refusal. */
export const SELF_TEST_PULL = `/v2/salvor/self-test/manifests/sha256:${'0'.repeat(64)}?ns=${SELF_TEST_REGISTRY}`;
