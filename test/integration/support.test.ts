import { describe, expect, test } from 'vitest';
import { startContainerd } from '../support/containerd-node.ts';
import { startDockerRegistry } from '../support/docker-registry.ts';
import { buildImage, buildIndex, buildAttestation, hostPlatform } from '../support/image.ts';
import { pushImage } from '../support/push.ts';
import { withScope } from '../support/test-scope.ts';
import { join } from 'node:path';

describe('containerd', () => {
  test('pulls from docker-registry by CRI and unpacks', () =>
    withScope('t', async (scope) => {
      const t0 = performance.now();
      const registry = await startDockerRegistry(scope);
      const t1 = performance.now();
      const directory = join(scope.directory, 'images');
      const image = await buildImage({
        directory,
        layers: [
          { files: { 'a/b': 'x' } },
          { randomBytes: 3e6 },
          { randomBytes: 1e6, seed: 'z', compression: 'zstd' },
          { randomBytes: 1e5, seed: 'p', compression: 'none' },
        ],
      });
      const index = buildIndex([image, buildAttestation(image)]);
      const pushed = await pushImage(
        { baseUrl: registry.url, repository: 'team/app', tag: '1' },
        index,
      );
      const t2 = performance.now();
      const node = await startContainerd(scope, { name: 'node-a' });
      const t3 = performance.now();
      const ref = `${registry.host}/team/app:1`;
      await node.pull(ref);
      console.log(t1 - t0, t2 - t1, t3 - t2, performance.now() - t3);
      console.log(pushed, await node.blobs(), await node.imageStatus(ref), node.warnings());
      expect(await node.isUnpacked(ref)).toBe(true);
      console.log(registry.accesses(), registry.program.lines().slice(0, 40));
      await node.removeImage(ref);
      console.log(await node.ctrPull(ref));
      expect(hostPlatform.os).toBe('linux');
    }));
});
