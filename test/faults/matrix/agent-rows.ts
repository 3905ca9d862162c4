import type { PeerConduct } from '../../support/fake-peer.ts';
import type { Cell, Expectation, Outcome } from './cell.ts';
import type { CellPlan } from './run-cell.ts';
import { budgets } from './upstream-rows.ts';

/** What a sick agent says of a tag. */
export type TagConduct = 'honest' | 'wrongType' | 'wrongDigest' | 'future';

/** One way in which an agent fails, the registry being down. Warm: an honest agent is beside it. */
export interface AgentRow {
  readonly faultClass: string;
  readonly title: string;
  readonly layerBytes: number;
  /** A real agent that was killed or stopped, or one that only acts. */
  readonly sick:
    | { readonly signal: 'SIGKILL' | 'SIGSTOP' }
    | {
        readonly blobs: PeerConduct;
        readonly tags: TagConduct;
        readonly verified?: boolean;
      };
  readonly plan: (cell: Cell) => CellPlan;
}

const kib = 1024;
const bigLayer = 1536 * kib;
const smallLayer = 512 * kib;

interface Expected {
  readonly outcomes: readonly Outcome[];
  readonly headersMs?: number;
  readonly note?: string;
}

/**
 * @param cold what is right where the sick agent is the only one; "content" means that it is
 *   honest enough
 */
function beside(
  cold: (cell: Cell) => Expected,
  options: { readonly warm?: (cell: Cell) => Expected | undefined; readonly retries?: number } = {},
): (cell: Cell) => CellPlan {
  return (cell) => {
    const isWarm = cell.warmth === 'warm';
    const wanted = isWarm ? (options.warm?.(cell) ?? { outcomes: ['content'] }) : cold(cell);
    const { outcomes, headersMs = budgets.answerMs, note } = wanted;
    const expectation: Expectation = {
      servable: outcomes.length === 1 && outcomes[0] === 'content',
      outcomes,
      headersMs,
      ...(note !== undefined && { note }),
    };
    return { expectation, ...(options.retries !== undefined && { retries: options.retries }) };
  };
}

const nobody = (): Expected => ({ outcomes: ['unavailable'] });
const honest = (): Expected => ({ outcomes: ['content'] });

function isManifest({ kind }: Cell): boolean {
  return kind === 'tag' || kind === 'digest';
}

function onlyTags(tag: Expected): (cell: Cell) => Expected {
  return ({ kind }) => (kind === 'tag' ? tag : { outcomes: ['content'] });
}

/** Every way in which an agent fails. */
export const agentRows: readonly AgentRow[] = [
  {
    faultClass: 'agent_dead',
    title: 'is dead',
    layerBytes: bigLayer,
    sick: { signal: 'SIGKILL' },
    plan: beside(nobody),
  },
  {
    faultClass: 'agent_stopped',
    title: 'stands still',
    layerBytes: bigLayer,
    sick: { signal: 'SIGSTOP' },
    plan: beside(nobody),
  },
  {
    faultClass: 'agent_slow',
    title: 'needs half a second, and sends 1 MiB a second',
    layerBytes: bigLayer,
    sick: { blobs: 'slow', tags: 'honest' },
    plan: beside(honest),
  },
  {
    faultClass: 'agent_busy',
    title: 'is overloaded: says so, and refuses',
    layerBytes: bigLayer,
    sick: { blobs: 'busy', tags: 'honest' },
    plan: beside(nobody),
  },
  {
    faultClass: 'agent_cut',
    title: 'breaks off in the middle',
    layerBytes: bigLayer,
    sick: { blobs: 'cut', tags: 'honest' },
    plan: beside((cell) => ({ outcomes: [isManifest(cell) ? 'unavailable' : 'broken'] })),
  },
  {
    faultClass: 'agent_stalled',
    title: 'stops in the middle',
    layerBytes: bigLayer,
    sick: { blobs: 'stall', tags: 'honest' },
    plan: beside((cell) => ({
      outcomes: [isManifest(cell) ? 'unavailable' : 'broken'],
    })),
  },
  {
    faultClass: 'agent_wrong_bytes',
    title: 'sends wrong bytes, blobs up to 1 MiB',
    layerBytes: smallLayer,
    // Bytes that a node says it has hashed are believed where a part is asked for.
    sick: { blobs: 'wrongBytes', tags: 'honest', verified: false },
    plan: beside(({ kind }) => ({
      outcomes: kind === 'range' ? ['unavailable', 'broken', 'reset'] : ['unavailable'],
    })),
  },
  {
    faultClass: 'agent_wrong_bytes_big',
    title: 'sends wrong bytes, blobs over 1 MiB, and the client tries again once',
    layerBytes: bigLayer,
    sick: { blobs: 'wrongBytes', tags: 'honest', verified: false },
    plan: beside(
      (cell) => ({
        outcomes: isManifest(cell) ? ['unavailable'] : ['unavailable', 'broken', 'reset'],
      }),
      {
        retries: 1,
      },
    ),
  },
  {
    faultClass: 'agent_wrong_length',
    title: 'says more than there is',
    layerBytes: smallLayer,
    sick: { blobs: 'wrongLength', tags: 'honest', verified: false },
    plan: beside((cell) => ({
      outcomes: isManifest(cell) ? ['content'] : ['unavailable', 'broken', 'reset'],
    })),
  },
  {
    faultClass: 'agent_wrong_type',
    title: 'calls an image an index',
    layerBytes: bigLayer,
    sick: { blobs: 'honest', tags: 'wrongType' },
    plan: beside(onlyTags({ outcomes: ['content', 'unavailable'] })),
  },
  {
    faultClass: 'agent_wrong_tag',
    title: 'says that the tag names something else, which nobody has',
    layerBytes: bigLayer,
    sick: { blobs: 'honest', tags: 'wrongDigest' },
    plan: beside(onlyTags({ outcomes: ['unavailable'] }), {
      warm: ({ kind }) =>
        kind === 'tag'
          ? {
              outcomes: ['unavailable'],
              note: 'the newest confirmation counts, whoever has it; never an older digest instead',
            }
          : undefined,
    }),
  },
  {
    faultClass: 'agent_future',
    title: 'says so with a time in the future',
    layerBytes: bigLayer,
    sick: { blobs: 'honest', tags: 'future' },
    plan: beside(onlyTags({ outcomes: ['unavailable'], note: 'the future is not believed' })),
  },
];
