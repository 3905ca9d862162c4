import { describe, expect, it } from 'vitest';
import { guardOfAll } from '../../../src/cli/address-guards.ts';
import { loadConfig } from '../../../src/config/load.ts';
import type { AddressGuard } from '../../../src/policy/address-guard.ts';

const metadata = '169.254.169.254';

/** What may be dialled for a registry, the configuration being this. */
async function guardFor(
  name: string,
  settings: { readonly upstreams?: object; readonly mirrors?: readonly object[] },
): Promise<AddressGuard> {
  const env = {
    SALVOR_REGISTRY_UPSTREAMS: JSON.stringify(settings.upstreams ?? {}),
    SALVOR_REGISTRY_MIRRORS: JSON.stringify(settings.mirrors ?? []),
  };
  return guardOfAll(name, (await loadConfig({ env })).registry);
}

describe('guardOfAll', () => {
  it('guardOfAll lets nothing guarded be dialled for a registry that is not described', async () => {
    const guard = await guardFor('127.0.0.1:5000', {});
    expect(guard.permits('127.0.0.1')).toBe(false);
    expect(guard.permits(metadata)).toBe(false);
    expect(guard.permits('8.8.8.8')).toBe(true);
  });

  it('guardOfAll lets the addresses be dialled that the configuration names for it', async () => {
    const upstreams = {
      'a.test': { url: 'http://127.0.0.1:5000' },
      'b.test': { endpoints: [{ url: 'http://127.0.0.2:5000' }, { url: 'http://localhost:5001' }] },
      'c.test': { allowAddresses: ['169.254.0.0/16'] },
    };
    const permitted = async (name: string): Promise<string[]> => {
      const guard = await guardFor(name, { upstreams });
      return ['127.0.0.1', '127.0.0.2', '::1', metadata].filter((each) => guard.permits(each));
    };
    expect(await permitted('a.test')).toEqual(['127.0.0.1']);
    expect(await permitted('b.test')).toEqual(['127.0.0.1', '127.0.0.2', '::1']);
    expect(await permitted('c.test')).toEqual([metadata]);
    expect(await permitted('d.test')).toEqual([]);
  });

  it('guardOfAll lets mirrors be dialled for registries that are not described', async () => {
    const registry = {
      mirrors: [{ url: 'http://127.0.0.1:5000' }],
      upstreams: { 'a.test': { url: 'https://a.test' } },
    };
    expect((await guardFor('b.test', registry)).permits('127.0.0.1')).toBe(true);
    expect((await guardFor('a.test', registry)).permits('127.0.0.1')).toBe(false);
  });
});
