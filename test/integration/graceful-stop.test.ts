import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.ts';
import { startFaultProxy, type FaultProxy } from '../support/fault-proxy.ts';
import { buildImage } from '../support/image.ts';
import { freePort } from '../support/ports.ts';
import { Program } from '../support/process.ts';
import { pushImage } from '../support/push.ts';
import { suiteScope } from '../support/test-scope.ts';
import { repositoryRoot } from '../support/tools.ts';
import { waitFor } from '../support/wait.ts';

const scope = suiteScope('graceful-stop');
const layerBytes = 8_000_000;

let upstream: DockerRegistry;
let proxy: FaultProxy;
let layer: string;

interface Stoppable {
  readonly program: Program;
  readonly port: number;
}

/** A registry without an agent, in front of the throttled upstream. */
async function startRegistry(name: string, shutdownMs: number): Promise<Stoppable> {
  const port = await freePort();
  const config = join(scope().directory, `${name}.json`);
  await writeFile(
    config,
    JSON.stringify({
      registry: {
        listen: `127.0.0.1:${port}`,
        admin: '',
        agentSocket: '',
        upstreams: { [proxy.host]: { url: proxy.url } },
        limits: { shutdownMs },
      },
    }),
  );
  const program = await Program.start(scope(), {
    name,
    command: process.execPath,
    arguments: [join(repositoryRoot, 'src', 'main.ts'), 'registry', '--config', config],
  });
  await program.waitForLine(/"msg":"ready"/, { timeoutMs: 20_000 });
  return { program, port };
}

/** Asks for the layer and returns when its first bytes have come. */
async function beginDownload({ port }: Stoppable): Promise<IncomingMessage> {
  const url = `http://127.0.0.1:${port}/v2/team/app/blobs/${layer}?ns=${proxy.host}`;
  const [response] = (await once(get(url), 'response')) as [IncomingMessage];
  await once(response, 'readable');
  return response;
}

beforeAll(async () => {
  upstream = await startDockerRegistry(scope());
  proxy = await startFaultProxy(scope(), { targetPort: upstream.port });
  const built = await buildImage({
    directory: scope().directory,
    layers: [{ randomBytes: layerBytes }],
  });
  const where = { baseUrl: upstream.url, repository: 'team/app', tag: 'v1' };
  const image = await pushImage(where, built);
  layer = image.blobs.toSorted((a, b) => b.size - a.size)[0]!.digest;
});

describe('SIGTERM', () => {
  test('lets a running download end, takes no new one, and ends with code 0', async () => {
    await proxy.setMode({ kind: 'throttle', bytesPerSecond: 8_000_000 });
    const registry = await startRegistry('patient', 30_000);
    const download = await beginDownload(registry);

    await registry.program.kill('SIGTERM');
    // The signal takes its moment; from then on nobody is let in while the download still runs.
    await waitFor(() =>
      fetch(`http://127.0.0.1:${registry.port}/v2/`, { headers: { connection: 'close' } }).then(
        () => undefined,
        () => true,
      ),
    );
    expect(registry.program.hasExited).toBe(false);
    const hash = createHash('sha256');
    for await (const chunk of download) hash.update(chunk as Buffer);

    expect(`sha256:${hash.digest('hex')}`).toBe(layer);
    expect(await registry.program.exited).toEqual({ code: 0, signal: null });
  });

  test('cuts a download that does not end within the deadline', async () => {
    await proxy.setMode({ kind: 'throttle', bytesPerSecond: 100_000 });
    const registry = await startRegistry('strict', 300);
    const download = await beginDownload(registry);

    await registry.program.kill('SIGTERM');

    const consumed = (async () => {
      for await (const chunk of download) expect(chunk).toBeInstanceOf(Buffer);
    })();
    await expect(consumed).rejects.toThrow();
    expect(await registry.program.exited).toEqual({ code: 0, signal: null });
    await proxy.setMode({ kind: 'pass' });
  });
});
