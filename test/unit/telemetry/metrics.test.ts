import { expect, test } from 'vitest';

import { createMetricsRegistry } from '../../../src/telemetry/metrics.ts';

test('createMetricsRegistry says which build runs and what the process needs', async () => {
  const text = await createMetricsRegistry({ role: 'agent', version: '1.2.3' }).metrics();
  expect(text).toContain(
    `salvor_build_info{version="1.2.3",role="agent",nodejs="${process.version}"} 1`,
  );
  expect(text).toMatch(/^process_resident_memory_bytes \d+$/m);
  expect(text).toMatch(/^process_open_fds \d+$/m);
});

test('createMetricsRegistry gives registries that know nothing of each other', async () => {
  const first = createMetricsRegistry({ role: 'agent', version: '1' });
  const second = createMetricsRegistry({ role: 'registry', version: '1' });
  expect(await first.metrics()).not.toContain('role="registry"');
  expect(await second.metrics()).not.toContain('role="agent"');
});
