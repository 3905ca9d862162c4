import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createAuthority } from '../../src/rpc/certificates.ts';
import type { Report } from '../../src/report/report.ts';
import {
  contentsOf,
  faultImage,
  manifestType,
  pushTo,
  type FaultImage,
} from '../faults/matrix/fault-image.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { startFaultProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { MemoryRegistry } from '../support/memory-registry.ts';
import { get } from '../support/oci-client.ts';
import { OlderAgent } from '../support/older-agent.ts';
import { freePort } from '../support/ports.ts';
import { sourceProgram } from '../support/program-path.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('older-agent');
const registryName = 'registry.test';

let upstream: MemoryRegistry;
let proxy: FaultProxy;
/** Both are of today; what lies between them is not. */
let asked: DirectoryNode;
let holder: DirectoryNode;
let olderOwn: OlderAgent;
let olderPeer: OlderAgent;

beforeAll(async () => {
  upstream = await MemoryRegistry.start(scope());
  proxy = await startFaultProxy(scope(), { targetPort: upstream.port });
  const authority = await createAuthority();
  const [askedAddress, holderAddress, olderAddress] = [
    `127.0.0.1:${await freePort()}`,
    `127.0.0.1:${await freePort()}`,
    `127.0.0.1:${await freePort()}`,
  ];
  const olderSocket = join(scope().socketDirectory, 'older.sock');
  const upstreams = { [registryName]: { url: proxy.url } };
  const budgets = { probeIntervalMs: 200 };
  const common = { upstreams, members: [] };
  holder = await DirectoryNode.create(
    scope(),
    { ...common, name: 'holder', agentAddress: holderAddress },
    authority,
  );
  asked = await DirectoryNode.create(
    scope(),
    {
      ...common,
      name: 'asked',
      agentAddress: askedAddress,
      members: [{ name: 'holder', address: olderAddress }],
      registry: { budgets, agentSocket: olderSocket },
    },
    authority,
  );
  await holder.startAgent();
  await asked.startAgent();
  olderPeer = await OlderAgent.start(scope(), {
    service: 'Peer',
    target: holderAddress,
    listen: olderAddress,
    authority,
  });
  olderOwn = await OlderAgent.start(scope(), {
    service: 'Local',
    target: `unix:${asked.socketPath}`,
    listen: `unix:${olderSocket}`,
  });
  await asked.startRegistry();
});

beforeEach(() => proxy.setMode({ kind: 'pass' }));

async function pull(image: FaultImage, how: 'tag' | 'digest'): Promise<unknown[]> {
  const name = how === 'tag' ? image.tag : image.manifest.digest;
  const paths = [
    `manifests/${name}`,
    ...[image.config, image.layer].map(({ digest }) => `blobs/${digest}`),
  ];
  const sources: unknown[] = [];
  for (const path of paths) {
    const url = `${asked.url}/v2/team/app/${path}?ns=${registryName}`;
    const answer = await get(url, { headers: { accept: manifestType } });
    expect(answer.status, answer.body.subarray(0, 300).toString()).toBe(200);
    sources.push(answer.headers['salvor-source']);
  }
  return sources;
}

describe('a registry whose agent, and whose peers, are of the version before', () => {
  test('serves from the upstream, and lets its agent know of tags', async () => {
    const image = faultImage('older up', { layerBytes: 100_000 });
    pushTo(upstream, image);
    expect(await pull(image, 'tag')).toEqual(['upstream', 'upstream', 'upstream']);
    await waitFor(() => olderOwn.calls.includes('Observe'), { what: 'an observation' });
  });

  test.each(['tag', 'digest'] as const)(
    'serves an outage by %s from an older peer',
    async (how) => {
      const image = faultImage(`older ${how}`, { layerBytes: 3_000_000 });
      pushTo(upstream, image);
      await pull(image, 'tag');
      for (const { digest, bytes } of contentsOf(image)) await holder.hold(digest, bytes);
      await proxy.setMode({ kind: 'refuse' });
      const sources = await pull(image, how);
      for (const source of sources.slice(1)) expect(source).toBe('node/holder');
      expect(olderPeer.calls).toContain('Read');
      expect(olderOwn.calls).toContain('Locate');
    },
  );

  test('stays watched, and complains of nothing that an older agent does not know', () => {
    expect(olderOwn.calls).toContain('Watch');
    const complaints = asked.registry.lines().filter(({ text }) => text.includes('"error"'));
    expect(complaints).toEqual([]);
  });
});

describe('a report that asks an older agent', () => {
  test('says that this node is too old, and reports what the others have', async () => {
    const admin = `127.0.0.1:${asked.agentAdminPort}`;
    const { command, main } = sourceProgram;
    const out = await new Promise<string>((resolve) => {
      const flags = ['report', '--agent-admin', admin, '--json'];
      execFile(command, [main, ...flags], (_, stdout) => resolve(stdout));
    });
    const report = JSON.parse(out) as Report;
    const states = report.members.map(({ node, state }) => [node, state] as const);
    expect(Object.fromEntries(states)).toMatchObject({ holder: 'too-old' });
    expect(report.isComplete).toBe(false);
  });
});
