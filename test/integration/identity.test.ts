import { execFile } from 'node:child_process';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { credentials } from '@grpc/grpc-js';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { parseDigest, type Digest } from '../../src/oci/digest.ts';
import { AgentClient } from '../../src/rpc/agent-client.ts';
import { createAuthority, issueIdentity, type Authority } from '../../src/rpc/certificates.ts';
import { certificatesIn } from '../../src/rpc/identity-facts.ts';
import { MutualChannelCredentials } from '../../src/rpc/channel-credentials.ts';
import { readIdentity, type Identity } from '../../src/rpc/identity.ts';
import { faultImage } from '../faults/matrix/fault-image.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { get, getHash } from '../support/oci-client.ts';
import { freePort } from '../support/ports.ts';
import type { Program } from '../support/process.ts';
import { suiteScope } from '../support/test-scope.ts';
import { repositoryRoot } from '../support/tools.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('identity');
const run = promisify(execFile);
const registryName = 'registry.test';
const mebibyte = 1024 ** 2;
const small = faultImage('identity small', { layerBytes: mebibyte }).layer;
const big = faultImage('identity big', { layerBytes: 8 * mebibyte }).layer;
const callLimits = { timeoutMs: 5000 };
const windowBytes = 256 * 1024;
let authority: Authority;
let stranger: Authority;
let holder: DirectoryNode;
let holderAddress: string;
let reader: DirectoryNode;
let pairs = 0;

beforeAll(async () => {
  [authority, stranger] = await Promise.all([createAuthority(), createAuthority()]);
});

/** Two nodes; the upstream is dead, so that every byte comes from the other node. */
beforeEach(async () => {
  pairs += 1;
  holderAddress = `127.0.0.1:${await freePort()}`;
  const readerAddress = `127.0.0.1:${await freePort()}`;
  const members = [
    { name: `holder-${pairs}`, address: holderAddress },
    { name: `reader-${pairs}`, address: readerAddress },
  ];
  const upstreams = { [registryName]: { url: `http://127.0.0.1:${await freePort()}` } };
  const create = (name: string, agentAddress: string): Promise<DirectoryNode> =>
    DirectoryNode.create(scope(), { name, agentAddress, members, upstreams }, authority);
  holder = await create(`holder-${pairs}`, holderAddress);
  reader = await create(`reader-${pairs}`, readerAddress);
  for (const { digest, bytes } of [small, big]) await holder.hold(digest, bytes);
});

const directoryOf = (node: DirectoryNode): string => dirname(node.configPath);

async function write(node: DirectoryNode, identity: Partial<Identity>): Promise<void> {
  const paths = node.identityPaths;
  for (const part of ['ca', 'certificate', 'key'] as const) {
    const content = identity[part];
    if (content !== undefined) await writeFile(paths[part], content);
  }
}

function digest(text: string): Digest {
  const parsed = parseDigest(text);
  if (!parsed.ok) throw new Error('Cannot parse the digest of a test');
  return parsed.value;
}

/** A client of the holder's agent that begins a connection of its own. */
async function withClient<T>(
  channel: ConstructorParameters<typeof AgentClient>[1]['credentials'],
  body: (client: AgentClient) => Promise<T>,
): Promise<T> {
  const client = new AgentClient(
    { target: holderAddress, windowBytes, name: 'holder' },
    { credentials: channel },
  );
  try {
    return await body(client);
  } finally {
    client.close();
  }
}

/** What a call to the holder's agent comes to with some identity. */
async function refusal(identity: Identity): Promise<string> {
  return withClient(new MutualChannelCredentials(identity), (client) =>
    client.stat(digest(small.digest), callLimits).then(
      (blob) => `served ${blob?.sizeBytes}`,
      (error: unknown) => (error as Error).message,
    ),
  );
}

const blobUrl = (blob: { digest: string }): string =>
  `${reader.url}/v2/team/app/blobs/${blob.digest}?ns=${registryName}`;

async function metric(node: DirectoryNode, name: string): Promise<number> {
  const { body } = await get(`http://127.0.0.1:${node.agentAdminPort}/metrics`);
  const lines = body.toString().split('\n');
  return Number(lines.find((line) => line.startsWith(`${name} `))?.split(' ')[1]);
}

function warnings(program: Program): Record<string, unknown>[] {
  return program
    .lines()
    .filter(({ text }) => text.includes('"level":"warn"') || text.includes('"level":"error"'))
    .map(({ text }) => JSON.parse(text) as Record<string, unknown>);
}

const whys = (program: Program): unknown[] => warnings(program).map(({ why }) => why);

/** No line of any key, and no PEM at all. */
async function expectNoSecrets(programs: readonly Program[]): Promise<void> {
  const keys = await Promise.all(
    [holder, reader].map(({ identityPaths }) => readFile(identityPaths.key, 'utf8')),
  );
  const lines = keys.flatMap((key) => key.split('\n')).filter((line) => line.length > 20);
  const logged = programs.flatMap((program) => program.lines()).map(({ text }) => text);
  for (const text of logged) {
    expect(text).not.toMatch(/BEGIN|PRIVATE/);
    expect(lines.filter((line) => text.includes(line))).toEqual([]);
  }
}

describe('mutual TLS between nodes', () => {
  test('Agent refuses who does not belong, and both sides learn why', async () => {
    await holder.startAgent();
    const good = await readIdentity(holder.identityPaths);
    expect(await refusal(good)).toBe(`served ${mebibyte}`);

    // One that knows the right authority, but was issued by another.
    const foreign = { ...(await issueIdentity(stranger, ['agent'])), ca: good.ca };
    expect(await refusal(foreign)).toMatch(/^Cannot ask holder for .*No connection established/);
    await waitFor(() =>
      whys(holder.agent).includes('its certificate is by no authority in tls.ca'),
    );
    // One that knows the other authority alone: it is the client that refuses.
    expect(await refusal(await issueIdentity(stranger, ['agent']))).toContain(
      'self-signed certificate in certificate chain',
    );

    const expired = await issueIdentity(authority, ['agent'], { validMs: -60_000 });
    expect(await refusal(expired)).toMatch(/the certificate of this node ended 20\d\d-/);

    // A role that may read blobs, but not speak about tags; then one that is none.
    const registry = await issueIdentity(authority, ['registry']);
    expect(await refusal(registry)).toBe(`served ${mebibyte}`);
    const resolve = withClient(new MutualChannelCredentials(registry), (client) =>
      client.resolve('registry.test/a:1', callLimits),
    );
    const roleFault = 'it is for the role agent, and the certificate names registry';
    await expect(resolve).rejects.toThrow(roleFault);
    await waitFor(() => whys(holder.agent).includes(roleFault), { what: roleFault });
    expect(await refusal(await issueIdentity(authority, []))).toContain('names none');

    // One that is no agent must not be taken for one by clients.
    await expect(
      withClient(credentials.createInsecure(), (client) =>
        client.stat(digest(small.digest), callLimits),
      ),
    ).rejects.toThrow('Cannot ask holder');
    await waitFor(() => whys(holder.agent).includes('it does not speak TLS'));
    expect(
      await metric(holder, 'salvor_agent_refused_connections_total{reason="certificate"}'),
    ).toBeGreaterThan(0);
    const refused = warnings(holder.agent).find(({ reason }) => reason === 'certificate');
    expect(refused).toMatchObject({ remote: { host: '127.0.0.1' } });
    await expectNoSecrets([holder.agent]);
  });

  test('Registry with a foreign or expired certificate says so, and answers honestly', async () => {
    await holder.startAgent();
    const { ca } = await readIdentity(reader.identityPaths);
    await write(reader, { ...(await issueIdentity(stranger, ['agent', 'registry'])), ca });
    await reader.startAgent();
    await reader.startRegistry();
    expect((await get(blobUrl(small))).status).toBe(503);
    const line = await reader.agent.waitForLine(/ended the connection at once/);
    expect(JSON.parse(line)).toMatchObject({ address: holderAddress });
    expect(warnings(reader.registry)[0]?.['reason']).toContain(
      'none of the authorities that it trusts has issued it',
    );
    // Put right while everything runs.
    await write(reader, await issueIdentity(authority, ['agent', 'registry']));
    await waitFor(async () => (await get(blobUrl(small))).status === 200, { timeoutMs: 30_000 });
    await expectNoSecrets([holder.agent, reader.agent, reader.registry]);
  });

  test('Agent keeps its identity when the new files are of no use', async () => {
    await holder.startAgent();
    const good = await readIdentity(holder.identityPaths);
    const endsAt = await metric(holder, 'salvor_tls_certificate_not_after_timestamp_seconds');
    expect(endsAt * 1000).toBe(Date.parse(certificatesIn(good.certificate)[0]!.validTo));
    const other = await issueIdentity(authority, ['agent', 'registry']);
    for (const [bad, reason] of [
      [{ key: Buffer.from('-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n') }, 'it is no private key'],
      [{ key: other.key }, 'the key is not that of the certificate'],
      [await issueIdentity(authority, ['registry']), 'it is for the role registry, not agent'],
      [await issueIdentity(authority, ['agent'], { validMs: -1 }), 'it ended'],
    ] as const) {
      const mark = holder.agent.lineCount;
      await write(holder, { ...good, ...bad });
      const line = await holder.agent.waitForLine(/Cannot reload the identity/, { from: mark });
      expect(JSON.parse(line)).toMatchObject({ reason: expect.stringContaining(reason) as string });
      expect(await metric(holder, 'salvor_tls_last_reload_successful')).toBe(0);
      expect(await refusal(good)).toBe(`served ${mebibyte}`);
    }
    await write(holder, other);
    await holder.agent.waitForLine(/"msg":"identity reloaded/);
    expect(await metric(holder, 'salvor_tls_last_reload_successful')).toBe(1);
    expect(await metric(holder, 'salvor_tls_reloads_total{result="failed"}')).toBe(4);
    await expectNoSecrets([holder.agent]);
  });
});

describe('salvor certs', () => {
  async function certs(command: string, ...flags: readonly string[]): Promise<string> {
    const outs = [holder, reader].flatMap((node) => ['--out', directoryOf(node)]);
    const main = join(repositoryRoot, 'src', 'main.ts');
    const authority = join(scope().directory, `authority-${pairs}`);
    // The agent and the registry of these nodes have one configuration.
    const own = ['--authority', authority, '--combined', ...outs];
    const { stdout } = await run(process.execPath, [main, 'certs', command, ...own, ...flags]);
    return stdout;
  }

  test('Pulls go on while certificates and their authority are replaced', async () => {
    for (const node of [holder, reader]) {
      for (const path of Object.values(node.identityPaths)) await rm(path);
    }
    await certs('issue');
    const first = await readIdentity(reader.identityPaths);
    await holder.startAgent();
    await reader.startAgent();
    await reader.startRegistry();
    const programs = [holder.agent, reader.agent, reader.registry];

    const stop = new AbortController();
    const load = { pulls: 0, connections: 0, failures: [] as unknown[] };
    const pullAll = async (): Promise<void> => {
      while (!stop.signal.aborted) {
        try {
          const { status, digest: found } = await getHash(blobUrl(small));
          if (status !== 200 || found !== small.digest) load.failures.push({ status });
          load.pulls += 1;
        } catch (error) {
          load.failures.push(error);
        }
      }
    };
    // Every call on a connection of its own, with the files as the reader's node has them.
    const connectAll = async (): Promise<void> => {
      while (!stop.signal.aborted) {
        const answer = await readIdentity(reader.identityPaths).then(refusal);
        if (answer !== `served ${mebibyte}`) load.failures.push(answer);
        load.connections += 1;
        await delay(50);
      }
    };
    // One blob that is read slowly through all of it, on one connection.
    const readSlowly = withClient(new MutualChannelCredentials(first), async (client) => {
      let sizeBytes = 0;
      const request = { digest: digest(big.digest), offsetBytes: 0 };
      for await (const frame of client.read(request, { timeoutMs: 110_000 })) {
        sizeBytes += frame.data.length;
        if (!stop.signal.aborted) await delay(500);
      }
      return sizeBytes;
    });
    const running = Promise.all([pullAll(), pullAll(), connectAll()]);

    const step = async (...command: readonly [string, ...string[]]): Promise<string> => {
      const marks = programs.map(({ lineCount }) => lineCount);
      const said = await certs(...command, '--settle', '1s');
      await Promise.all(
        programs.map((program, n) =>
          program.waitForLine(/"msg":"identity reloaded/, {
            from: marks[n] ?? 0,
            timeoutMs: 30_000,
          }),
        ),
      );
      return said;
    };
    expect(await step('rotate', '--identities')).toContain(
      'issued for agent and registry, as asked',
    );
    expect(await step('rotate')).toContain('introduced a new authority');
    expect(await step('issue')).toContain('the new authority signs from now on');
    expect(await step('issue')).toContain('the previous authority is trusted no longer');
    // The old identity counts for nothing now.
    expect(await refusal({ ...first, ca: (await readIdentity(reader.identityPaths)).ca })).toMatch(
      /No connection established/,
    );
    stop.abort();
    await running;
    expect(load.failures).toEqual([]);
    expect(load.pulls).toBeGreaterThan(20);
    expect(load.connections).toBeGreaterThan(20);
    expect(await readSlowly).toBe(big.bytes.length);
    expect(await metric(holder, 'salvor_tls_reloads_total{result="ok"}')).toBe(4);
    expect(await metric(holder, 'salvor_tls_authorities')).toBe(1);

    // Whoever connects anew can only do so with what it has taken over.
    await holder.agent.stop();
    await holder.startAgent();
    await waitFor(async () => (await get(blobUrl(small))).status === 200, { timeoutMs: 20_000 });
    await expectNoSecrets([...programs, holder.agent]);
  });
});
