import { execFile } from 'node:child_process';
import { appendFile, mkdir, readdir, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';
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
import { expectNoLeaks } from '../support/no-leaks.ts';
import { get, getHash } from '../support/oci-client.ts';
import { mountSmallDisk } from '../support/small-disk.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';

expectNoLeaks();

const scope = suiteScope('full-disk');
const registryName = 'registry.test';
const repository = 'team/app';
const layerBytes = 100_000;
const diskBytes = 4 * 1024 * 1024;

let upstream: MemoryRegistry;
let proxy: FaultProxy;
/** Its state directory is a disk of its own. */
let puller: DirectoryNode;
let holder: DirectoryNode;
let disk: string;

beforeAll(async () => {
  upstream = await MemoryRegistry.start(scope());
  proxy = await startFaultProxy(scope(), { targetPort: upstream.port });
  await mkdir(join(scope().directory, 'puller'));
  disk = await mountSmallDisk(scope(), { name: 'puller/state', sizeBytes: diskBytes });
  ({ puller, holder } = await DirectoryNode.createGroup(scope(), ['puller', 'holder'], {
    upstreams: { [registryName]: { url: proxy.url } },
    registry: { budgets: { probeIntervalMs: 200 } },
  }));
  for (const node of [puller, holder]) {
    await node.startAgent();
    await node.startRegistry();
  }
});

function urlOf(path: string): string {
  return `${puller.url}/v2/${repository}/${path}?ns=${registryName}`;
}

/** An image that the upstream and the other node have. */
async function image(what: string): Promise<FaultImage> {
  const made = faultImage(what, { layerBytes });
  pushTo(upstream, made);
  for (const { digest, bytes } of contentsOf(made)) await holder.hold(digest, bytes);
  return made;
}

async function expectPull({ tag, manifest, layer }: FaultImage): Promise<void> {
  const answer = await get(urlOf(`manifests/${tag}`), { headers: { accept: manifestType } });
  expect(
    [answer.status, answer.headers['docker-content-digest']],
    answer.body.toString().slice(0, 500),
  ).toEqual([200, manifest.digest]);
  const blob = await getHash(urlOf(`blobs/${layer.digest}`));
  expect([blob.status, blob.digest]).toEqual([200, layer.digest]);
}

const filler = (): string => join(disk, 'filler');

/** Writes until not one more byte fits. */
async function fill(): Promise<void> {
  for (let size = 1024 * 1024; size >= 1; size = Math.floor(size / 2)) {
    const chunk = Buffer.alloc(size, 7);
    for (;;) {
      const isWritten = await appendFile(filler(), chunk).then(
        () => true,
        () => false,
      );
      if (!isWritten) break;
    }
  }
  expect((await statfs(disk)).bavail).toBe(0);
}

async function isUsable(): Promise<string | undefined> {
  const { body } = await get(`http://127.0.0.1:${puller.agentAdminPort}/metrics`);
  return /^salvor_agent_observation_file_usable (\d)$/m.exec(body.toString())?.[1];
}

function troubles(): string[] {
  const lines = puller.agent.lines().map(({ text }) => text);
  return lines.filter(
    (text) => text.includes('bservations') && /"level":"?(error|50|40)/.test(text),
  );
}

/** @param how one leaves a whole file behind, the other a journal that is not in it yet */
async function startAgain(
  how: 'SIGTERM' | 'SIGKILL',
  meanwhile: () => Promise<void> = async () => undefined,
): Promise<void> {
  for (const program of [puller.registry, puller.agent]) {
    if (how === 'SIGKILL') await program.kill('SIGKILL');
    else await program.stop();
  }
  await meanwhile();
  await puller.startAgent();
  await puller.startRegistry();
}

const disks = {
  'without one free byte': {
    begin: fill,
    end: () => rm(filler()),
  },
  'that is read-only': {
    begin: () => remount('ro'),
    end: () => remount('rw'),
  },
} as const;

async function remount(how: 'ro' | 'rw'): Promise<void> {
  await promisify(execFile)('mount', ['-o', `remount,${how}`, disk]);
}

describe.each(Object.entries(disks))(
  'a state directory on a disk %s',
  (what, { begin, end: mend }) => {
    test.each(['SIGTERM', 'SIGKILL'] as const)(
      'does not keep an agent that ended by %s from starting, and costs nothing that it knew',
      async (how) => {
        const before = await image(`${what} ${how} before`);
        await expectPull(before);
        const during = await image(`${what} ${how} during`);
        await startAgain(how, begin);

        await proxy.setMode({ kind: 'refuse' });
        await expectPull(before);
        await proxy.setMode({ kind: 'pass' });
        await waitFor(async () => !(await isInOutage()), { what: 'the end of the outage' });

        await expectPull(during);
        await proxy.setMode({ kind: 'refuse' });
        await expectPull(during);
        expect(await isUsable()).toBe('0');
        expect(troubles()).toHaveLength(1);

        // With room again, what was learnt meanwhile is written at the end.
        await mend();
        await startAgain('SIGTERM');
        expect(await isUsable()).toBe('1');
        await expectPull(before);
        await expectPull(during);
        expect(troubles()).toEqual([]);
        expect((await readdir(disk)).filter((name) => name.includes('.broken-'))).toEqual([]);
        await proxy.setMode({ kind: 'pass' });
        await waitFor(async () => !(await isInOutage()), { what: 'the end of the outage' });
      },
    );
  },
);

async function isInOutage(): Promise<boolean> {
  const { body } = await get(`http://127.0.0.1:${puller.adminPort}/metrics`);
  return /^salvor_registry_upstream_outage\{[^}]*\} 1$/m.test(body.toString());
}
