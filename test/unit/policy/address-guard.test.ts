import { describe, expect, it } from 'vitest';
import { AddressGuard, ForbiddenAddressError } from '../../../src/policy/address-guard.ts';

const strict = new AddressGuard([]);

function lookup(
  guard: AddressGuard,
  name: string,
  options: { all?: boolean; family?: 4 | 6 } = {},
): Promise<{ error: Error | null; address: unknown }> {
  return new Promise((resolve) => {
    guard.lookup(name, options, (error, address) => resolve({ error, address }));
  });
}

describe('AddressGuard', () => {
  it.each([
    '127.0.0.1',
    '127.255.0.9',
    '0.0.0.0',
    '169.254.169.254',
    '169.254.0.1',
    '224.0.0.1',
    '240.0.0.1',
    '255.255.255.255',
    '100.100.100.200',
    '168.63.129.16',
    '::',
    '::1',
    'fe80::1',
    'ff02::1',
    'fd00:ec2::254',
    'fd00:ec2::23',
    'fd20:ce::254',
    'fd00:c1::a9fe:a9fe',
    'fd00:42::42',
    'fd00:a9fe:a9fe::1',
    'fd00:100::100:200',
    '::ffff:127.0.0.1',
    '::ffff:a9fe:a9fe',
    '::ffff:169.254.169.254',
    '64:ff9b::7f00:1',
    '64:ff9b::169.254.169.254',
  ])('AddressGuard does not let %s be dialled', (address) => {
    expect(strict.permits(address)).toBe(false);
    const host = address.includes(':') ? `[${address}]` : address;
    expect(() => strict.checkHost(host)).toThrow(ForbiddenAddressError);
    expect(() => strict.checkHost(new URL(`http://${host}/`).hostname)).toThrow(
      ForbiddenAddressError,
    );
  });

  it.each([
    '8.8.8.8',
    '10.1.2.3',
    '172.16.0.1',
    '192.168.1.1',
    '2606:4700::1',
    'fd12:3456::1',
    '64:ff9b::808:808',
  ])('AddressGuard lets %s be dialled', (address) => {
    expect(strict.permits(address)).toBe(true);
  });

  it('AddressGuard sees through the ways in which a URL can write an address', () => {
    for (const host of ['0x7f.1', '2130706433', '0177.0.0.1', '127.1', '127.0.0.1.']) {
      const { hostname } = new URL(`http://${host}/`);
      expect(() => strict.checkHost(hostname)).toThrow(ForbiddenAddressError);
    }
  });

  it('AddressGuard lets through what is allowed, in both ways of writing it', () => {
    const guard = new AddressGuard(['127.0.0.0/8', '169.254.169.254/32', 'fe80::/10']);
    expect(guard.permits('127.0.0.1')).toBe(true);
    expect(guard.permits('::ffff:127.0.0.1')).toBe(true);
    expect(guard.permits('169.254.169.254')).toBe(true);
    expect(guard.permits('fe80::5')).toBe(true);
    expect(guard.permits('169.254.169.253')).toBe(false);
    expect(guard.permits('::1')).toBe(false);
  });

  it('AddressGuard refuses what is no network', () => {
    expect(() => new AddressGuard(['localhost'])).toThrow();
  });

  it('AddressGuard leaves names to the lookup', async () => {
    expect(() => strict.checkHost('localhost')).not.toThrow();
    for (const options of [{}, { all: true }]) {
      const { error } = await lookup(strict, 'localhost', options);
      expect(error).toBeInstanceOf(ForbiddenAddressError);
      expect(error?.message).toContain('localhost');
    }
  });

  it('AddressGuard gives the permitted addresses of a name, one or all as asked', async () => {
    const guard = new AddressGuard(['127.0.0.0/8']);
    expect(await lookup(guard, 'localhost', { family: 4 })).toEqual({
      error: null,
      address: '127.0.0.1',
    });
    const { address } = await lookup(guard, 'localhost', { all: true });
    expect(address).toEqual([{ address: '127.0.0.1', family: 4 }]);
  });

  it('AddressGuard hands on that a name does not exist', async () => {
    const { error } = await lookup(strict, 'no-such-host.invalid');
    expect(error).toMatchObject({
      code: expect.stringMatching(/^E(NOTFOUND|AI_AGAIN)$/) as string,
    });
  });

  it('AddressGuard knows which networks an operator means by a host', () => {
    expect(AddressGuard.networkOf('localhost')).toEqual(['127.0.0.0/8', '::1/128']);
    expect(AddressGuard.networkOf('10.0.0.1')).toEqual(['10.0.0.1/32']);
    expect(AddressGuard.networkOf('[::1]')).toEqual(['::1/128']);
    expect(AddressGuard.networkOf('registry.test')).toEqual([]);
  });
});
