import { expect, test } from 'vitest';

import { ConfigError } from '../../../src/config/config-error.ts';
import { loadConfig } from '../../../src/config/load.ts';
import type { Config } from '../../../src/config/schema.ts';

function load(release: string, drop: string): Promise<Config> {
  const flags = {
    'agent.copies.releaseAtPercent': release,
    'agent.copies.dropAtPercent': drop,
  };
  return loadConfig({ flags, env: {} });
}

async function wrongKeys(release: string, drop: string): Promise<readonly string[]> {
  const error: unknown = await load(release, drop).catch((reason: unknown) => reason);
  if (!(error instanceof ConfigError)) throw new Error('Cannot see a mistake', { cause: error });
  return error.mistakes.map(({ key }) => key);
}

test('loadConfig wants copies to begin to go before all of them go, and both before kubelet acts', async () => {
  expect(await wrongKeys('70', '70')).toEqual(['agent.copies.releaseAtPercent']);
  expect(await wrongKeys('80', '84')).toEqual(['agent.copies.releaseAtPercent']);
  expect(await wrongKeys('70', '85')).toEqual(['agent.copies.dropAtPercent']);
  const config = await load('79', '84');
  expect(config.agent.copies).toMatchObject({ releaseAtPercent: 79, dropAtPercent: 84 });
});
