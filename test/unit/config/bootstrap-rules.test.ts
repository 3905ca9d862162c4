import { describe, expect, test } from 'vitest';
import { ConfigError } from '../../../src/config/config-error.ts';
import { loadConfig } from '../../../src/config/load.ts';

const pems = { ca: '/t/ca.crt', certificate: '/t/tls.crt', key: '/t/tls.key' };

/** What an agent says to these settings: keys and what was expected. */
async function mistakesIn(bootstrap: object, others: object = {}): Promise<string[]> {
  const text = JSON.stringify({ agent: { bootstrap }, tls: pems, ...others });
  const load = loadConfig({ command: 'agent', file: '/etc/salvor.json', content: { text } });
  const error: unknown = await load.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error === undefined) return [];
  if (!(error instanceof ConfigError)) throw new Error('Expected a ConfigError', { cause: error });
  return error.mistakes.map(({ expected, key }) => `${key}: ${expected}`);
}

describe('loadConfig agent.bootstrap', () => {
  const repositories = ['registry.test/salvor'];

  test('loadConfig has no listener for new nodes unless told', async () => {
    const { agent } = await loadConfig();
    expect(agent.bootstrap).toMatchObject({ listen: '', repositories: [] });
    expect(await mistakesIn({})).toEqual([]);
    expect(await mistakesIn({ listen: '0.0.0.0:7492', repositories })).toEqual([]);
  });

  test('loadConfig wants to be told what new nodes may read', async () => {
    expect(await mistakesIn({ listen: '0.0.0.0:7492' })).toEqual([
      'agent.bootstrap.repositories: what may be read there, as agent.bootstrap.listen is given',
    ]);
    const [wrong] = await mistakesIn({ listen: '0.0.0.0:7492', repositories: ['a b'] });
    expect(wrong).toContain('agent.bootstrap.repositories[0]: a registry and repository');
  });

  test('loadConfig takes no listener for new nodes without TLS', async () => {
    const agent = { listen: '127.0.0.1:7490', bootstrap: { listen: '127.0.0.1:1', repositories } };
    const [wrong] = await mistakesIn({}, { agent, tls: { mode: 'off' } });
    expect(wrong).toBe('agent.bootstrap.listen: nothing, as tls.mode is off');
  });

  test.each(['0.0.0.0:7490', '127.0.0.1:7491'])(
    'loadConfig takes no second listener at %s',
    async (listen) => {
      const [wrong] = await mistakesIn({ listen, repositories });
      expect(wrong).toContain('an address other than agent.listen and agent.admin');
    },
  );
});
