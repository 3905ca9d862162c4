import type { FaultImage } from './fault-image.ts';

/** What is asked for. */
export const kinds = ['tag', 'digest', 'blob', 'range'] as const;
export type Kind = (typeof kinds)[number];

/** Whether an honest node holds all of it, or nobody does. */
export const warmths = ['warm', 'cold'] as const;
export type Warmth = (typeof warmths)[number];

/** How many clients ask at the same moment. */
export const clientCounts = [1, 16] as const;

/** One cell of the matrix. */
export interface Cell {
  /** "refused", "agent_dead": the fault. */
  readonly faultClass: string;
  readonly kind: Kind;
  readonly warmth: Warmth;
  readonly clients: number;
  /** The registry that the cell's images are from: one of its own, so that no cell sees another. */
  readonly registry: string;
  readonly image: FaultImage;
}

/** How one request ended, as an independent client sees it. */
export type Outcome =
  /** All bytes, the right ones, described by the right headers. */
  | 'content'
  /** 503 with an OCI error. */
  | 'unavailable'
  /** Right bytes up to somewhere, then a polite end: the client goes on from there. */
  | 'broken'
  /** A reset: the client must not go on from what it has. */
  | 'reset'
  /** The client left after a while, with right bytes up to there. */
  | 'left'
  /** What the upstream itself would have given, wrong as it is: a part cannot be checked. */
  | 'as_upstream'
  /** Wrong bytes, or right ones wrongly described. */
  | 'wrong'
  /** No answer at all: the connection was closed. */
  | 'closed'
  /** Any other status. */
  | 'status'
  /** No headers, or no end. */
  | 'hang';

/** What a cell has to come to. */
export interface Expectation {
  /** An honest reachable node held all bytes throughout, or the upstream was healthy. */
  readonly servable: boolean;
  readonly outcomes: readonly Outcome[];
  /** Time to headers, milliseconds. */
  readonly headersMs: number;
  /** Why, where the answer is not plain from the two above. For the page on outages. */
  readonly note?: string;
}

/** The cell's name in results. */
export function cellName(cell: Pick<Cell, 'faultClass' | 'kind' | 'warmth' | 'clients'>): string {
  return `fault.${cell.faultClass}.${cell.kind}.${cell.warmth}.${cell.clients}`;
}
