import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { API_CALLS } from '../../../src/kubernetes/api-calls.ts';
import { inClusterAccess } from '../../../src/kubernetes/cluster-access.ts';
import { KubeApi, type KubeObject } from '../../../src/kubernetes/kube-api.ts';
import { KubeError } from '../../../src/kubernetes/kube-error.ts';
import { kubeconfigAccess } from '../../../src/kubernetes/kubeconfig-access.ts';
import { createAuthority } from '../../../src/rpc/certificates.ts';
import { FakeKubeApi, sendStatus } from '../../support/fake-kube-api.ts';
import { issueServerCertificate } from '../../support/server-certificate.ts';
import { suiteScope, withScope } from '../../support/test-scope.ts';

const scope = suiteScope('kube-api');
let tls: { ca: string; cert: string; key: string };
let strange: { ca: string };

beforeAll(async () => {
  tls = await issueServerCertificate(await createAuthority());
  strange = await issueServerCertificate(await createAuthority());
});

const everything = [...API_CALLS.agent, ...API_CALLS.certificates];

/** An API server without TLS and a client of it. */
async function plain(): Promise<{ server: FakeKubeApi; api: KubeApi }> {
  const server = await FakeKubeApi.start(scope());
  const access = {
    url: new URL(server.url),
    namespace: 'own',
    requestOptions: async () => ({}),
  };
  const api = new KubeApi({ timeoutMs: 2000 }, { connect: async () => access, calls: everything });
  return { server, api };
}

function slice(name: string): { metadata: { name: string; namespace: string } } {
  return { metadata: { name, namespace: 'ns' } };
}

async function failure(promise: Promise<unknown>): Promise<KubeError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(KubeError);
  return error as KubeError;
}

describe('KubeApi', () => {
  test('KubeApi lists over pages, and takes the version of the last', async () => {
    const { server, api } = await plain();
    for (let n = 0; n < 1201; n += 1) server.put('endpointslices', slice(`s-${n}`));
    const list = await api.list('endpointslices', { namespace: 'ns' });
    expect(list.items.length).toBe(1201);
    expect(new Set(list.items.map((each) => each.metadata?.name)).size).toBe(1201);
    expect(list.resourceVersion).toBe(String(server.version));
    expect(server.queries.map((query) => query.get('continue'))).toEqual([null, '500', '1000']);
  });

  test('KubeApi asks in its own namespace where none is given', async () => {
    const { server, api } = await plain();
    server.put('secrets', { metadata: { name: 'a', namespace: 'own' } });
    expect(await api.get('secrets', { namespace: '', name: 'a' })).toBeDefined();
    expect(await api.get('secrets', { namespace: 'ns', name: 'a' })).toBeUndefined();
  });

  test('KubeApi watches from a version on, chunks cut anywhere', async () => {
    const { server, api } = await plain();
    const { resourceVersion } = await api.list('endpointslices', { namespace: 'ns' });
    server.put('endpointslices', slice('a'));
    const stop = new AbortController();
    const options = { resourceVersion, timeoutMs: 60_000, signal: stop.signal };
    const watch = api.watch<KubeObject>('endpointslices', { namespace: 'ns', ...options });
    expect(await watch.next()).toMatchObject({
      value: { type: 'ADDED', object: { metadata: { name: 'a' } } },
    });
    const text = JSON.stringify({ type: 'DELETED', object: slice('ü') });
    const bytes = Buffer.from(text);
    const next = watch.next();
    for (let at = 0; at < bytes.length; at += 7) {
      server.writeToWatches(bytes.subarray(at, at + 7));
    }
    server.writeToWatches('\n\n');
    expect(await next).toMatchObject({
      value: { type: 'DELETED', object: { metadata: { name: 'ü' } } },
    });
    stop.abort(new Error('enough'));
    await expect(watch.next()).rejects.toThrow('enough');
  });

  test('KubeApi tells an expired version from other failures', async () => {
    const { server, api } = await plain();
    server.put('endpointslices', slice('a'));
    server.compact();
    const options = { namespace: 'ns', resourceVersion: '100', timeoutMs: 1000 };
    const inStream = await failure(api.watch('endpointslices', options).next());
    expect(inStream).toMatchObject({ isGone: true, status: 410 });
    server.failNext.push((response) => sendStatus(response, 410, 'Gone'));
    expect((await failure(api.watch('endpointslices', options).next())).isGone).toBe(true);
    const future = { ...options, resourceVersion: '9000' };
    const early = await failure(api.watch('endpointslices', future).next());
    expect(early).toMatchObject({ isGone: false, status: 504 });
  });

  test('KubeApi reports garbage in a watch, a line without end and one too long', async () => {
    const { server, api } = await plain();
    const options = { namespace: 'ns', resourceVersion: '100', timeoutMs: 60_000 };
    for (const [text, end] of [
      ['{nonsense}\n', false],
      ['{"type":"NEWS","object":{}}\n', false],
      ['{"type":"ADDED"', true],
      [`"${'x'.repeat(5 * 1024 * 1024)}`, false],
    ] as const) {
      const watch = api.watch('endpointslices', {
        ...options,
        onOpen: () => {
          server.writeToWatches(text);
          if (end) server.endWatches('end');
        },
      });
      expect((await failure(watch.next())).message).toMatch(/^Cannot watch endpointslices in ns: /);
    }
  });

  test('KubeApi says what the API server said, and how long to wait', async () => {
    const { server, api } = await plain();
    server.granted = new Set();
    const refused = await failure(api.list('endpointslices', { namespace: 'ns' }));
    expect(refused.message).toBe(
      'Cannot list endpointslices in ns: the API server answered 403 Forbidden, cannot list ' +
        'resource "endpointslices"',
    );
    server.failNext.push((response) => {
      response.setHeader('retry-after', '7');
      sendStatus(response, 429, 'TooManyRequests');
    });
    const busy = await failure(api.list('endpointslices', { namespace: 'ns' }));
    expect(busy).toMatchObject({ status: 429, retryAfterMs: 7000 });
  });

  test('KubeApi never shows the content of an answer that it cannot read', async () => {
    const { server, api } = await plain();
    server.failNext.push((response) => void response.end('{"data": secret-thing'));
    const error = await failure(api.get('secrets', { namespace: 'ns', name: 'a' }));
    expect(JSON.stringify([error.message, String(error.cause)])).not.toContain('secret-thing');
  });

  test('KubeApi gives up on a server that says nothing', async () => {
    const server = await FakeKubeApi.start(scope());
    const access = { url: new URL(server.url), namespace: '', requestOptions: async () => ({}) };
    const api = new KubeApi({ timeoutMs: 50 }, { connect: async () => access, calls: everything });
    server.failNext.push(() => undefined);
    const silent = await failure(api.list('endpointslices', { namespace: 'ns' }));
    expect(silent.message).toContain('no answer in time');
    server.failNext.push((response) => void response.writeHead(200).write('{'));
    const halting = await failure(api.list('endpointslices', { namespace: 'ns' }));
    expect(halting.message).toContain('no end in time');
  });

  test('KubeApi makes, changes and guards objects by their version', async () => {
    const { api } = await plain();
    const target = { namespace: 'ns', name: 'a' };
    const made = await api.create('secrets', slice('a'), { namespace: 'ns' });
    expect((await failure(api.create('secrets', slice('a'), { namespace: 'ns' }))).status).toBe(
      409,
    );
    const changed = await api.update('secrets', { ...made, data: { x: 'eQ==' } }, target);
    expect(changed).toMatchObject({ data: { x: 'eQ==' } });
    expect((await failure(api.update('secrets', made, target))).status).toBe(409);
    expect(
      (await failure(api.update('secrets', slice('b'), { ...target, name: 'b' }))).status,
    ).toBe(404);
  });

  test('KubeApi sends nothing that was not declared', async () => {
    const { server } = await plain();
    const access = { url: new URL(server.url), namespace: '', requestOptions: async () => ({}) };
    const api = new KubeApi(
      { timeoutMs: 1000 },
      { connect: async () => access, calls: API_CALLS.agent },
    );
    await expect(api.get('secrets', { namespace: 'ns', name: 'a' })).rejects.toThrow(
      'Cannot get secrets: API_CALLS does not say so',
    );
    expect(server.calls).toEqual([]);
  });

  test('KubeApi finds the API server again when it could not at first', async () => {
    const { server } = await plain();
    let tries = 0;
    const connect = async () => {
      tries += 1;
      if (tries === 1) throw new Error('no file yet');
      return { url: new URL(server.url), namespace: '', requestOptions: async () => ({}) };
    };
    const api = new KubeApi({ timeoutMs: 1000 }, { connect, calls: everything });
    const error = await failure(api.list('endpointslices', { namespace: 'ns' }));
    expect(error.message).toContain('no file yet');
    expect((await api.list('endpointslices', { namespace: 'ns' })).items).toEqual([]);
    await api.list('endpointslices', { namespace: 'ns' });
    expect(tries).toBe(2);
  });
});

describe('inClusterAccess', () => {
  test('inClusterAccess proves who asks, with a token that may change and an authority', async () => {
    await withScope('in-cluster', async (own) => {
      const server = await FakeKubeApi.start(own, tls);
      server.token = 'one';
      const directory = join(own.directory, 'account');
      const content = { ca: tls.ca, token: 'one\n', namespace: 'salvor' };
      const env = await server.serviceAccount(directory, content);
      const connect = () => inClusterAccess({ env, directory });
      const api = new KubeApi({ timeoutMs: 2000 }, { connect, calls: everything });
      server.put('secrets', { metadata: { name: 'a', namespace: 'salvor' } });
      expect(await api.get('secrets', { namespace: '', name: 'a' })).toBeDefined();
      server.token = 'two';
      const stale = await failure(api.get('secrets', { namespace: '', name: 'a' }));
      expect(stale.status).toBe(401);
      await writeFile(join(directory, 'token'), 'two');
      expect(await api.get('secrets', { namespace: '', name: 'a' })).toBeDefined();
      await writeFile(join(directory, 'ca.crt'), strange.ca);
      const distrusted = await failure(api.get('secrets', { namespace: '', name: 'a' }));
      expect(distrusted.status).toBeUndefined();
      expect(distrusted.message).not.toContain('two');
    });
  });

  test('inClusterAccess says what to do outside of a Pod', async () => {
    await expect(inClusterAccess({ env: {} })).rejects.toThrow('give a kubeconfig');
  });

  test('inClusterAccess puts an IPv6 address into brackets', async () => {
    const server = new FakeKubeApi();
    const directory = join(scope().directory, 'account6');
    await server.serviceAccount(directory, { ca: tls.ca, token: 't', namespace: 'n' });
    const env = { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '443' };
    const access = await inClusterAccess({ env, directory });
    expect(access.url.href).toBe('https://[fd00::1]/');
  });
});

describe('kubeconfigAccess', () => {
  test('kubeconfigAccess uses the current context', async () => {
    const server = await FakeKubeApi.start(scope(), tls);
    server.token = 'from-file';
    const path = join(scope().directory, 'kubeconfig');
    await writeFile(
      path,
      JSON.stringify({
        'current-context': 'here',
        contexts: [{ name: 'here', context: { cluster: 'c', user: 'u', namespace: 'team' } }],
        clusters: [
          {
            name: 'c',
            cluster: {
              server: server.url,
              'certificate-authority-data': Buffer.from(tls.ca).toString('base64'),
            },
          },
        ],
        users: [{ name: 'u', user: { token: 'from-file' } }],
      }),
    );
    const connect = () => kubeconfigAccess(path);
    const api = new KubeApi({ timeoutMs: 5000 }, { connect, calls: everything });
    server.put('secrets', { metadata: { name: 'a', namespace: 'team' } });
    expect(await api.get('secrets', { namespace: '', name: 'a' })).toBeDefined();
  });
});
