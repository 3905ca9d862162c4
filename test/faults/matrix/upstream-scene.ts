import { createAuthority } from '../../../src/rpc/certificates.ts';
import { startDeafPort } from '../../support/deaf-port.ts';
import { DirectoryNode } from '../../support/directory-node.ts';
import { startFaultProxy, type FaultProxy } from '../../support/fault-proxy.ts';
import { MemoryRegistry } from '../../support/memory-registry.ts';
import { get } from '../../support/oci-client.ts';
import { freePort } from '../../support/ports.ts';
import { issueServerCertificate } from '../../support/server-certificate.ts';
import type { TestScope } from '../../support/test-scope.ts';
import type { Cell } from './cell.ts';
import { faultImage, pushTo, removeFrom } from './fault-image.ts';
import { leftovers } from './leftovers.ts';
import {
  cellsOf,
  dropImage,
  holdImage,
  isWanted,
  lookForNothing,
  rememberRegistry,
  repository,
  type CellFilter,
  type ReadyCell,
  type Scene,
} from './scene.ts';
import { upstreamRows, type UpstreamRow } from './upstream-rows.ts';

/** Where each kind of registry is. */
interface Places {
  readonly blackHole: number;
  readonly tlsUrl: string;
  readonly tokenUrl: string;
}

interface PlannedCell {
  readonly row: UpstreamRow;
  readonly cell: Cell;
  /** Of the cell's own proxy. */
  readonly proxyPort: number;
  /** Of the cell's own registry, where a CDN is behind the proxy. */
  readonly registryPort: number;
}

/**
 * Two nodes and registries that fail: node a is asked, node b holds what is warm. Both are well.
 */
export async function startUpstreamScene(scope: TestScope, filter: CellFilter): Promise<Scene> {
  const planned: PlannedCell[] = [];
  for (const row of upstreamRows.filter((one) => isWanted(one, filter))) {
    for (const cell of cellsOf(row, filter)) {
      const [proxyPort, registryPort] = [await freePort(), await freePort()];
      planned.push({ row, cell, proxyPort, registryPort });
    }
  }
  const honest = await MemoryRegistry.start(scope);
  const places = await startPlaces(scope, honest);
  const upstreams = Object.fromEntries(
    planned.map((one) => [one.cell.registry, { url: urlOf(one, places) }]),
  );
  const { a, b } = await startNodes(scope, upstreams);
  const earlier = faultImage('earlier', { layerBytes: 1024 });
  pushTo(honest, { ...earlier, tag: 'earlier' });
  const proxies: FaultProxy[] = [];
  const ready: ReadyCell[] = [];
  for (const one of planned) {
    const { cell, row } = one;
    // Before any cell runs, so that nobody takes the port meanwhile.
    const proxy = await startParts(scope, one, honest);
    if (proxy !== undefined) proxies.push(proxy);
    ready.push({
      cell,
      node: a,
      plan: row.plan(cell),
      prepare: async () => {
        pushTo(honest, cell.image);
        if (cell.warmth === 'warm') await holdImage(b, cell, { withTag: true });
        if (row.reach === 'proxy' || row.reach === 'cdn') await pullEarlier(a, cell);
        else await rememberRegistry(b, cell);
      },
      strike: async () => {
        const mode = row.mode?.(cell);
        if (mode !== undefined) await proxy?.setMode(mode);
      },
      restore: async () => {
        await proxy?.setMode({ kind: 'pass' });
        removeFrom(honest, cell.image);
        await dropImage(b, cell);
      },
    });
  }
  const unreachable = planned.filter(({ row }) => ['dns', 'tls', 'blackHole'].includes(row.reach));
  await lookForNothing(a, planned[0]!.cell);
  const check = await leftovers({ scene: 'upstreams', nodes: [a, b], peers: 1 });
  return {
    name: 'upstreams',
    cells: ready,
    afterAll: async () =>
      check({
        outagesLeft: unreachable.length,
        closeAll: async () => {
          for (const proxy of proxies) await proxy.setMode({ kind: 'refuse' });
        },
      }),
  };
}

async function startNodes(
  scope: TestScope,
  upstreams: Readonly<Record<string, object>>,
): Promise<{ a: DirectoryNode; b: DirectoryNode }> {
  const authority = await createAuthority();
  const members = [
    { name: 'a', address: `127.0.0.1:${await freePort()}` },
    { name: 'b', address: `127.0.0.1:${await freePort()}` },
  ];
  const create = async (name: string, index: number): Promise<DirectoryNode> => {
    const agentAddress = members[index]!.address;
    return DirectoryNode.create(scope, { name, agentAddress, members, upstreams }, authority);
  };
  const [a, b] = [await create('a', 0), await create('b', 1)];
  await Promise.all([b.startAgent(), a.startAgent()]);
  await a.startRegistry();
  return { a, b };
}

async function startPlaces(scope: TestScope, honest: MemoryRegistry): Promise<Places> {
  const tls = await issueServerCertificate(await createAuthority());
  const [deadPort, deafPort] = [await freePort(), await freePort()];
  await startDeafPort(scope, deafPort);
  const [secure, closed] = [
    await MemoryRegistry.start(scope, { contentsOf: honest, tls }),
    await MemoryRegistry.start(scope, {
      contentsOf: honest,
      realm: () => `http://127.0.0.1:${deadPort}/token`,
    }),
  ];
  return {
    blackHole: deafPort,
    tlsUrl: secure.url,
    tokenUrl: closed.url,
  };
}

function urlOf({ row, proxyPort, registryPort }: PlannedCell, places: Places): string {
  switch (row.reach) {
    case 'proxy':
      return `http://127.0.0.1:${proxyPort}`;
    case 'cdn':
      return `http://127.0.0.1:${registryPort}`;
    case 'dns':
      return 'http://registry.salvor.invalid';
    case 'tls':
      return places.tlsUrl;
    case 'blackHole':
      return `http://127.0.0.1:${places.blackHole}`;
    case 'token':
      return places.tokenUrl;
  }
}

async function startParts(
  scope: TestScope,
  { row, proxyPort, registryPort }: PlannedCell,
  honest: MemoryRegistry,
): Promise<FaultProxy | undefined> {
  if (row.reach !== 'proxy' && row.reach !== 'cdn') return undefined;
  const proxy = await startFaultProxy(scope, { port: proxyPort, targetPort: honest.port });
  if (row.reach === 'cdn') {
    const blobOrigin = (): string => proxy.url;
    await MemoryRegistry.start(scope, { port: registryPort, contentsOf: honest, blobOrigin });
  }
  return proxy;
}

async function pullEarlier(node: DirectoryNode, cell: Cell): Promise<void> {
  const url = `${node.url}/v2/${repository}/manifests/earlier?ns=${cell.registry}`;
  const { status } = await get(url);
  if (status !== 200) throw new Error(`Cannot prepare ${cell.registry}: status ${status}`);
}
