import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { AnonymousTokens } from '../../../../src/agent/keeper/anonymous-tokens.ts';
import { FetchError } from '../../../../src/agent/keeper/fetch-error.ts';
import { AddressGuard, ForbiddenAddressError } from '../../../../src/policy/address-guard.ts';
import { expectNoLeaks } from '../../../support/no-leaks.ts';

expectNoLeaks();

const { signal } = new AbortController();
const place = { registry: '127.0.0.1:5000', repository: 'team/app' };
const closers: (() => void)[] = [];

afterEach(() => {
  for (const close of closers.splice(0)) close();
});

/** A token service that answers as told, and what it was asked. */
async function service(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<{ port: number; asked: IncomingMessage[] }> {
  const asked: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    asked.push(request);
    answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closers.push(() => {
    server.close();
    server.closeAllConnections();
  });
  return { port: (server.address() as AddressInfo).port, asked };
}

const secret = (_: IncomingMessage, response: ServerResponse): void => {
  response.end(JSON.stringify({ token: 'secret' }));
};

/** @param allowed networks that may be dialled although they are guarded */
function ask(
  realm: string,
  options: { allowed?: readonly string[]; registry?: string } = {},
): Promise<string | undefined> {
  const { allowed = ['127.0.0.0/8'], registry = place.registry } = options;
  const tokens = new AnonymousTokens({ guardOf: () => new AddressGuard(allowed) });
  const challenge = { scheme: 'Bearer', params: { realm, service: 'registry.test' } };
  return tokens.token(challenge, { ...place, registry }, { signal });
}

async function failureOf(work: Promise<unknown>): Promise<FetchError> {
  const error: unknown = await work.then(
    () => undefined,
    (failure: unknown) => failure,
  );
  if (error instanceof FetchError) return error;
  throw new Error(`Cannot be: no FetchError, but ${String(error)}`);
}

describe('AnonymousTokens.token', () => {
  test('asks without credentials, for what is to be read', async () => {
    const { port, asked } = await service(secret);
    expect(await ask(`http://127.0.0.1:${port}/token`)).toBe('secret');
    expect(asked).toHaveLength(1);
    expect(asked[0]!.headers['authorization']).toBeUndefined();
    const { searchParams } = new URL(asked[0]!.url ?? '', 'http://service');
    expect(searchParams.get('service')).toBe('registry.test');
    expect(searchParams.get('scope')).toBe('repository:team/app:pull');
  });

  test('asks the registry alone without a certificate', async () => {
    const { port, asked } = await service(secret);
    for (const realm of [`http://127.0.0.1:${port}/token`, 'file:///etc/passwd', 'nonsense']) {
      expect(await ask(realm, { registry: 'registry.test' })).toBeUndefined();
    }
    expect(asked).toEqual([]);
  });

  test.each([
    'https://169.254.169.254/latest/meta-data',
    'https://100.100.100.200/',
    'https://[fd00:ec2::254]/',
    'https://[fe80::1]/',
    'https://0.0.0.0/',
    'https://[::]/',
  ])('dials no guarded address: %s', async (realm) => {
    const failure = await failureOf(ask(realm));
    expect(failure.reason).toBe('needs_credentials');
    expect(failure.cause).toBeInstanceOf(ForbiddenAddressError);
    expect(failure.message).toContain('allowAddresses');
  });

  test.each(['127.0.0.1', '0x7f.1', '2130706433', '[::ffff:127.0.0.1]', 'localhost'])(
    'does not dial this machine unless that is configured: %s',
    async (host) => {
      const { port, asked } = await service(secret);
      for (const protocol of ['https', 'http']) {
        const { href, hostname } = new URL(`${protocol}://${host}:${port}/token`);
        const failure = await failureOf(ask(href, { allowed: [], registry: hostname }));
        expect(failure.reason).toBe('needs_credentials');
        expect(failure.cause).toBeInstanceOf(ForbiddenAddressError);
      }
      expect(asked).toEqual([]);
    },
  );

  test('dials of the addresses of a name those alone that may be dialled', async () => {
    const { port, asked } = await service(secret);
    const realm = `http://localhost:${port}/token`;
    expect(await ask(realm, { registry: 'localhost:5000' })).toBe('secret');
    expect(asked).toHaveLength(1);
    const failure = await failureOf(
      ask(realm, { registry: 'localhost:5000', allowed: ['127.9.9.9/32'] }),
    );
    expect(failure.cause).toBeInstanceOf(ForbiddenAddressError);
  });

  test('decides by registry what may be dialled', async () => {
    const { port } = await service(secret);
    const tokens = new AnonymousTokens({
      guardOf: (registry) =>
        new AddressGuard(registry === 'localhost:5000' ? ['127.0.0.0/8', '::1/128'] : []),
    });
    const challenge = { scheme: 'Bearer', params: { realm: `http://localhost:${port}/token` } };
    const asFor = (registry: string): Promise<string | undefined> =>
      tokens.token(challenge, { ...place, registry }, { signal });
    expect(await asFor('localhost:5000')).toBe('secret');
    expect((await failureOf(asFor('localhost:5001'))).reason).toBe('needs_credentials');
  });

  test.each([301, 302, 303, 307, 308])('follows no redirect: %i', async (status) => {
    const victim = await service(secret);
    for (const location of [
      `http://127.0.0.1:${victim.port}/token`,
      `http://localhost:${victim.port}/token`,
      'http://169.254.169.254/',
    ]) {
      const { port } = await service((_, response) => {
        response.writeHead(status, { location }).end();
      });
      const failure = await failureOf(ask(`http://127.0.0.1:${port}/token`));
      expect(failure.reason).toBe('upstream_down');
      expect(failure.message).toContain(String(status));
    }
    expect(victim.asked).toEqual([]);
  });

  test('tells a service that is down from one that says no', async () => {
    for (const status of [503, 429]) {
      const { port } = await service((_, response) => response.writeHead(status).end());
      const failure = await failureOf(ask(`http://127.0.0.1:${port}/token`));
      expect(failure.reason).toBe('upstream_down');
    }
    const { port } = await service((_, response) => response.writeHead(403).end());
    expect(await ask(`http://127.0.0.1:${port}/token`)).toBeUndefined();
  });

  test('takes a name that does not exist for a service that is down', async () => {
    const failure = await failureOf(ask('https://no-such-host.invalid/token'));
    expect(failure.reason).toBe('upstream_down');
  });

  test.each(['{"token":"a b"}', '{"token":1}', '[]', 'nonsense', `"${'x'.repeat(70_000)}"`])(
    'takes no nonsense for a token',
    async (answer) => {
      const { port } = await service((_, response) => response.end(answer));
      const failure = await failureOf(ask(`http://127.0.0.1:${port}/token`));
      expect(failure.reason).toBe('upstream_down');
    },
  );

  test('keeps the reason of an abort', async () => {
    const { port } = await service(() => undefined);
    const stop = new AbortController();
    const tokens = new AnonymousTokens({ guardOf: () => new AddressGuard(['127.0.0.0/8']) });
    const challenge = { scheme: 'Bearer', params: { realm: `http://127.0.0.1:${port}/token` } };
    const token = tokens.token(challenge, place, { signal: stop.signal });
    stop.abort(new Error('The agent stops'));
    await expect(token).rejects.toThrow('The agent stops');
  });
});
