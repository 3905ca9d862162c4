import type { TagStatement } from '../../../src/rpc/agent-protocol.ts';
import { parseDigest, type Digest } from '../../../src/oci/digest.ts';
import type { DirectoryNode } from '../../support/directory-node.ts';
import { get } from '../../support/oci-client.ts';
import { clientCounts, kinds, warmths, type Cell, type Kind, type Warmth } from './cell.ts';
import { contentsOf, faultImage, manifestType, type FaultImage } from './fault-image.ts';
import type { CellPlan, CellResult } from './run-cell.ts';

export const repository = 'team/app';
/** For cells whose blobs are not looked at. */
const tinyLayerBytes = 1024;
/** An honest node heard of a tag before any other. */
const observedAgoMs = 60_000;

/** Which cells are wanted; all unless told. */
export interface CellFilter {
  readonly classes?: readonly string[];
  readonly kinds?: readonly Kind[];
  readonly warmths?: readonly Warmth[];
  readonly clients?: readonly number[];
}

/** A cell that is ready to run, in a scene of processes that many cells share. */
export interface ReadyCell {
  readonly cell: Cell;
  readonly plan: CellPlan;
  /** Puts everything in its place, healthy. */
  readonly prepare: () => Promise<void>;
  /** Makes what is to fail fail. */
  readonly strike: () => Promise<void>;
  /** Mends it and takes everything away. */
  readonly restore: () => Promise<void>;
  readonly node: DirectoryNode;
}

/** Processes, and the cells that they are for. */
export interface Scene {
  readonly name: string;
  readonly cells: readonly ReadyCell[];
  /** For cells that have to be prepared before something ends for good. */
  readonly beforeAll?: () => Promise<void>;
  /** Checks what is left when all cells are done. */
  readonly afterAll?: () => Promise<readonly CellResult[]>;
}

/** A row's cells, one for each kind, warmth and number of clients that is wanted. */
export function cellsOf(
  row: { readonly faultClass: string; readonly layerBytes: number },
  filter: CellFilter,
): Cell[] {
  const { faultClass } = row;
  const cells: Cell[] = [];
  for (const kind of filter.kinds ?? kinds) {
    for (const warmth of filter.warmths ?? warmths) {
      for (const clients of filter.clients ?? clientCounts) {
        const registry = `${faultClass.replaceAll('_', '-')}-${kind}-${warmth}-${clients}.test`;
        const layerBytes = kind === 'blob' || kind === 'range' ? row.layerBytes : tinyLayerBytes;
        let image: FaultImage | undefined;
        cells.push({
          faultClass,
          kind,
          warmth,
          clients,
          registry,
          // Made when it is needed: there are hundreds.
          get image() {
            return (image ??= faultImage(registry, { layerBytes }));
          },
        });
      }
    }
  }
  return cells;
}

export function isWanted(row: { readonly faultClass: string }, filter: CellFilter): boolean {
  return filter.classes?.includes(row.faultClass) ?? true;
}

/** The name under which agents know a cell's tag. */
export function tagNameOf(cell: Pick<Cell, 'registry'>, tag: string): string {
  return `${cell.registry}/${repository}:${tag}`;
}

/** What an honest node says about a cell's tag. */
export function honestStatement(cell: Cell): TagStatement & { readonly observedAtMs: number } {
  const { digest, bytes } = cell.image.manifest;
  return {
    digest: checkedDigest(digest),
    mediaType: manifestType,
    sizeBytes: bytes.length,
    observedAtMs: Date.now() - observedAgoMs,
  };
}

export function checkedDigest(text: string): Digest {
  const digest = parseDigest(text);
  if (!digest.ok) throw new Error(`Cannot use ${text}: ${digest.reason}`);
  return digest.value;
}

/** Lets a node have a cell's image, as if it had pulled it. */
export async function holdImage(
  node: DirectoryNode,
  cell: Cell,
  options: { readonly withTag: boolean },
): Promise<void> {
  for (const { digest, bytes } of contentsOf(cell.image)) await node.hold(digest, bytes);
  if (options.withTag) await node.observe(tagNameOf(cell, cell.image.tag), honestStatement(cell));
}

export async function dropImage(node: DirectoryNode, cell: Cell): Promise<void> {
  for (const { digest } of contentsOf(cell.image)) await node.drop(digest);
}

/** Some node has once had an answer from the cell's registry: what fails now has worked. */
export async function rememberRegistry(node: DirectoryNode, cell: Cell): Promise<void> {
  await node.observe(tagNameOf(cell, 'earlier'), honestStatement(cell));
}

/** Asks for something that nobody has, so that connections between nodes are there. */
export async function lookForNothing(node: DirectoryNode, cell: Cell): Promise<void> {
  const digest = `sha256:${'0'.repeat(64)}`;
  await get(`${node.url}/v2/${repository}/blobs/${digest}?ns=${cell.registry}`);
}
