import { Counter, Gauge, type Registry } from 'prom-client';

/** What is counted of last copies. */
export type LastCopiesMetrics = ReturnType<typeof createLastCopiesMetrics>;

/** Registers the metrics of last copies. */
export function createLastCopiesMetrics(register: Registry) {
  const registers = [register];
  return {
    guardedBytes: new Gauge({
      name: 'salvor_agent_copies_guarded_bytes',
      help: 'Bytes that would stay on this node if their images were removed.',
      registers,
    }),
    guardedImages: new Gauge({
      name: 'salvor_agent_copies_guarded_images',
      help: 'Images that would stay on this node if they were removed.',
      registers,
    }),
    heldBytes: new Gauge({
      name: 'salvor_agent_copies_held_bytes',
      help: 'Bytes on this node that only Salvor keeps: the runtime has removed their images.',
      registers,
    }),
    heldImages: new Gauge({
      name: 'salvor_agent_copies_held_images',
      help: 'Removed images that Salvor keeps on this node.',
      registers,
    }),
    budgetBytes: new Gauge({
      name: 'salvor_agent_copies_budget_bytes',
      help: 'What guarded bytes may be at most.',
      registers,
    }),
    released: new Counter({
      name: 'salvor_agent_copies_released_total',
      help: 'Removed images that Salvor kept on this node and let go, by reason.',
      labelNames: ['reason'],
      registers,
    }),
  };
}
