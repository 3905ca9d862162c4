import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';

import { describeTree } from '../support/certs-trees.ts';
import type { ContainerdVersion } from '../support/containerd-version.ts';
import { suiteScope } from '../support/test-scope.ts';
import { waitFor } from '../support/wait.ts';
import { HostsScene } from './hosts-scene.ts';

/** `salvor hosts` on a node with a real containerd, from before Salvor to after it. */
export function describeHosts(version: ContainerdVersion): void {
  const scope = suiteScope(`hosts-${version.name}`);
  let scene: HostsScene;
  let before: Record<string, string>;
  let cacheUrl: string;

  beforeAll(async () => {
    scene = await HostsScene.create(scope(), { version });
    cacheUrl = scene.cacheUrl;
    for (const name of ['first', 'second', 'third']) {
      await scene.publish(`team/${name}`, { baseUrl: cacheUrl });
      await scene.publish(`home/${name}`, { baseUrl: scene.home.url });
    }
    before = await describeTree(scene.node.certsDirectory);
  });

  const now = (): Promise<Record<string, string>> => describeTree(scene.node.certsDirectory);

  // From test to test the node gets on: without Salvor, with it, Salvor dead, without it again.
  describe(`salvor hosts with containerd ${version.name}`, () => {
    test('changes nothing while Salvor does not answer, and says what to do', async () => {
      const dead = await scene.hosts('--wait', '1s');
      expect(dead).toMatchObject({ code: 1, out: '' });
      expect(dead.error).toMatch(/ECONNREFUSED; nothing was changed\. Start `salvor registry`/);
      const other = await scene.hosts('--wait', '1s', '--mirror-url', scene.home.url);
      expect(other).toMatchObject({ code: 1 });
      expect(other.error).toContain('something else answers there (status 200)');
      expect(await now()).toEqual(before);
    });

    test('shows what would change without secrets, then changes it once', async () => {
      await scene.salvor.startAgent();
      await scene.salvor.startRegistry();
      const dry = await scene.hosts('--dry-run');
      expect(dry).toMatchObject({ code: 0, error: '' });
      expect(dry.out).toContain(`+[host."${scene.salvor.url}"]`);
      expect(dry.out).not.toContain(HostsScene.authorization);
      expect(await now()).toEqual(before);

      const done = await scene.hosts('--wait', '30s');
      expect(done).toMatchObject({ code: 0, error: '' });
      expect(done.out).toMatch(/left alone: \S+broken\.test\/hosts\.toml/);
      expect(done.out).not.toContain(HostsScene.authorization);
      const installed = await now();
      expect(Object.keys(installed)).toContain('_default/hosts.toml');
      expect(await scene.text('broken.test/hosts.toml')).toBe('server = \n');
      expect((await scene.hosts()).out).toContain('nothing to change');
      expect(await now()).toEqual(installed);
      await waitFor(
        () => scene.salvor.registry.lines().some(({ text }) => text.includes('reloaded')),
        { what: 'the registry to know its upstreams', timeoutMs: 20_000 },
      );
    });

    test('has containerd ask Salvor, and Salvor the mirror of the company', async () => {
      const asked = scene.home.accesses().length;
      await scene.node.pull('hub.test/team/first:v1');
      expect(scene.salvorPulls('hub.test')).toBeGreaterThan(0);
      expect(scene.front.requests.length).toBeGreaterThan(0);
      for (const { headers, path } of scene.front.requests) {
        expect(headers.authorization).toBe(HostsScene.authorization);
        expect(headers['user-agent']).toContain('containerd');
        expect(path).toMatch(/^\/v2\/hub\/(team\/first\/\S+)?\?ns=hub\.test$/);
      }
      const content = scene.home.accesses().slice(asked);
      expect(content.filter(({ path }) => path.includes('team/first'))).toEqual([]);
      const log = scene.salvor.registry.lines().map(({ text }) => text);
      expect(log.filter((text) => text.includes(HostsScene.authorization))).toEqual([]);
    });

    test('has Salvor present the certificates of a registry', async () => {
      await scene.node.pull('tls.test:5000/home/first:v1');
      expect(scene.salvorPulls('tls.test:5000')).toBeGreaterThan(0);
      expect(scene.tlsRequests.length).toBeGreaterThan(0);
    });

    test('has containerd ask Salvor where there was an empty directory, or none', async () => {
      await scene.node.pull('bare.test/home/first:v1');
      await scene.node.pull('other.test/home/second:v1');
      expect(scene.salvorPulls('bare.test')).toBeGreaterThan(0);
      expect(scene.salvorPulls('other.test')).toBeGreaterThan(0);
    });

    test('leaves containerd what it had while Salvor is dead', async () => {
      await scene.salvor.registry.kill('SIGKILL');
      const asked = scene.front.requests.length;
      await scene.node.pull('hub.test/team/second:v1');
      expect(scene.front.requests.length).toBeGreaterThan(asked);
      const tlsAsked = scene.tlsRequests.length;
      await scene.node.pull('tls.test:5000/home/second:v1');
      expect(scene.tlsRequests.length).toBeGreaterThan(tlsAsked);
    });

    test('is undone to the last byte, Salvor dead or not', async () => {
      const { code, out } = await scene.hosts('restore');
      expect(code).toBe(0);
      expect(out).toMatch(/restored: \S+hub\.test\/hosts\.toml/);
      expect(await now()).toEqual(before);
      const state = join(scope().directory, 'salvor', 'state', 'upstreams', 'hosts.json');
      await expect(readFile(state)).rejects.toThrow('ENOENT');
      await scene.node.pull('hub.test/team/third:v1');
      expect((await scene.hosts('restore')).out).toBe('');
    });
  });
}
