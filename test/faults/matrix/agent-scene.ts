import type { TagStatement } from '../../../src/rpc/agent-protocol.ts';
import { createAuthority, type Authority } from '../../../src/rpc/certificates.ts';
import { DirectoryNode } from '../../support/directory-node.ts';
import { FakePeer } from '../../support/fake-peer.ts';
import { startFaultProxy } from '../../support/fault-proxy.ts';
import { freePort } from '../../support/ports.ts';
import type { TestScope } from '../../support/test-scope.ts';
import { agentRows, type AgentRow, type TagConduct } from './agent-rows.ts';
import type { Cell } from './cell.ts';
import { contentsOf } from './fault-image.ts';
import { leftovers } from './leftovers.ts';
import {
  cellsOf,
  checkedDigest,
  dropImage,
  holdImage,
  honestStatement,
  isWanted,
  lookForNothing,
  tagNameOf,
  type CellFilter,
  type ReadyCell,
  type Scene,
} from './scene.ts';

/** The honest node is a little further away than the sick one, so that the sick one comes first. */
const honestLagMs = 40;
const dayMs = 86_400_000;
const indexType = 'application/vnd.oci.image.index.v1+json';

interface Members {
  readonly authority: Authority;
  readonly list: { readonly name: string; readonly address: string }[];
}

/** Nodes whose registry is down: node c is asked, b is honest, and each row has a sick one. */
export async function startActingScene(scope: TestScope, filter: CellFilter): Promise<Scene> {
  const rows = agentRows.filter((row) => !('signal' in row.sick) && isWanted(row, filter));
  const members: Members = { authority: await createAuthority(), list: [] };
  const peers = new Map<AgentRow, FakePeer>();
  for (const row of rows) {
    const name = `sick-${row.faultClass.replaceAll('_', '-')}`;
    const address = `127.0.0.1:${await freePort()}`;
    members.list.push({ name, address });
    const { authority } = members;
    peers.set(row, await FakePeer.start(scope, { name, address, authority }));
  }
  const planned = rows.flatMap((row) => cellsOf(row, filter).map((cell) => ({ row, cell })));
  const { c, b } = await startNodes(scope, 'c', planned, members);
  const cells = planned.map(({ row, cell }): ReadyCell => {
    const peer = peers.get(row)!;
    const name = tagNameOf(cell, cell.image.tag);
    return {
      cell,
      node: c,
      plan: row.plan(cell),
      prepare: async () => {
        if (cell.warmth === 'warm') await holdImage(b, cell, { withTag: true });
        act(peer, row, cell);
      },
      strike: async () => undefined,
      restore: async () => {
        peer.forget([name, ...contentsOf(cell.image).map(({ digest }) => digest)]);
        await dropImage(b, cell);
      },
    };
  });
  await lookForNothing(c, planned[0]!.cell);
  const check = await leftovers({ scene: 'agents', nodes: [c, b], peers: members.list.length });
  return {
    name: 'agents',
    cells,
    afterAll: async () => check({ outagesLeft: planned.length, closeAll: async () => undefined }),
  };
}

/** The same with one real agent that is killed or stopped, which all cells have to share. */
export async function startSignalScene(
  scope: TestScope,
  filter: CellFilter,
  faultClass: string,
): Promise<Scene> {
  const row = agentRows.find((one) => one.faultClass === faultClass)!;
  const members: Members = { authority: await createAuthority(), list: [] };
  const name = `sick-${faultClass.replaceAll('_', '-')}`;
  const agentAddress = `127.0.0.1:${await freePort()}`;
  members.list.push({ name, address: agentAddress });
  const planned = isWanted(row, filter) ? cellsOf(row, filter).map((cell) => ({ row, cell })) : [];
  const { c, b } = await startNodes(scope, faultClass.slice(-1), planned, members);
  const options = { name, agentAddress, members: members.list, upstreams: {} };
  const sick = await DirectoryNode.create(scope, options, members.authority);
  await sick.startAgent();
  const cells = planned.map(({ cell }): ReadyCell => ({
    cell,
    node: c,
    plan: row.plan(cell),
    prepare: async () => {
      if (cell.warmth === 'warm') await holdImage(b, cell, { withTag: true });
    },
    strike: async () => undefined,
    restore: async () => dropImage(b, cell),
  }));
  return {
    name: faultClass,
    cells,
    beforeAll: async () => {
      for (const { cell } of cells) await holdImage(sick, cell, { withTag: true });
      if ('signal' in row.sick) await sick.agent.kill(row.sick.signal);
    },
  };
}

async function startNodes(
  scope: TestScope,
  asked: string,
  planned: readonly { readonly cell: Cell }[],
  members: Members,
): Promise<{ c: DirectoryNode; b: DirectoryNode }> {
  const [c, b] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
  const targetPort = Number(b.split(':')[1]);
  const lagging = await startFaultProxy(scope, { targetPort });
  await lagging.setMode({ kind: 'lag', delayMs: honestLagMs });
  members.list.push({ name: asked, address: c }, { name: 'b', address: lagging.host });
  const url = `http://127.0.0.1:${await freePort()}`;
  const upstreams = Object.fromEntries(planned.map(({ cell }) => [cell.registry, { url }]));
  const create = async (name: string, agentAddress: string): Promise<DirectoryNode> => {
    const options = { name, agentAddress, members: members.list, upstreams };
    return DirectoryNode.create(scope, options, members.authority);
  };
  const nodes = { c: await create(asked, c), b: await create('b', b) };
  await Promise.all([nodes.b.startAgent(), nodes.c.startAgent()]);
  await nodes.c.startRegistry();
  return nodes;
}

function act(peer: FakePeer, row: AgentRow, cell: Cell): void {
  const { sick } = row;
  if ('signal' in sick) return;
  const { blobs: conduct, tags, verified = true } = sick;
  for (const { digest, bytes } of contentsOf(cell.image)) {
    peer.hold(digest, bytes, { conduct, verified });
  }
  peer.know(tagNameOf(cell, cell.image.tag), [statementOf(cell, tags)]);
}

/** A little newer than what an honest node says, so that it counts. */
function statementOf(cell: Cell, conduct: TagConduct): TagStatement {
  const honest = { ...honestStatement(cell), observedAtMs: Date.now() - 1000 };
  const elsewhere = checkedDigest(`sha256:${'ab'.repeat(32)}`);
  switch (conduct) {
    case 'honest':
      return honest;
    case 'wrongType':
      return { ...honest, mediaType: indexType };
    case 'wrongDigest':
      return { ...honest, digest: elsewhere };
    case 'future': {
      const inADay = Date.now() + dayMs;
      return { ...honest, digest: elsewhere, observedAtMs: inADay, recordedAtMs: inADay };
    }
  }
}
