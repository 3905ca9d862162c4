import { Counter, Gauge, type Registry } from 'prom-client';

/** Counts of a node's pulls. No image is ever a label. */
export type PullMetrics = ReturnType<typeof createPullMetrics>;

/** Registers them. */
export function createPullMetrics(register: Registry) {
  const registers = [register];
  return {
    seen: new Counter({
      name: 'salvor_agent_pulls_seen_total',
      help: 'New images that the runtime pulled through the registry of this node.',
      registers,
    }),
    bypassed: new Counter({
      name: 'salvor_agent_pulls_bypassed_total',
      help: 'New images that the runtime pulled without asking the registry of this node.',
      registers,
    }),
    wiringExpected: new Gauge({
      name: 'salvor_agent_wiring_expected',
      help: 'Whether the runtime of this node is meant to pull through its registry: 1, else 0.',
      registers,
    }),
    unknown: new Counter({
      name: 'salvor_agent_pulls_unknown_total',
      help: 'New images of which nobody can say whether they were pulled through the registry of this node: it answers, but not on its admin port.',
      registers,
    }),
  };
}
