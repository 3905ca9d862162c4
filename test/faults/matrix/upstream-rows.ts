import type { Exchange } from '../../support/http-tap.ts';
import type { FaultMode } from '../../support/fault-proxy.ts';
import type { Cell, Expectation, Kind, Outcome, Warmth } from './cell.ts';
import type { ClientAnswer } from './client.ts';
import { requestOf } from './judge.ts';
import type { CellPlan } from './run-cell.ts';

/** How a row's registry is reached. */
export type Reach =
  /** Through a fault proxy of the cell's own. */
  | 'proxy'
  /** Its name does not resolve. */
  | 'dns'
  /** Its certificate is from an authority that nobody trusts. */
  | 'tls'
  /** Connection attempts get no answer at all. */
  | 'blackHole'
  /** It answers, and redirects blobs to a CDN behind the fault proxy. */
  | 'cdn'
  /** It answers, and wants tokens from a service that is down. */
  | 'token';

/** One way in which a registry fails. */
export interface UpstreamRow {
  readonly faultClass: string;
  readonly title: string;
  readonly reach: Reach;
  /** Size of the image's layer; blobs up to 1 MiB are checked before they go out. */
  readonly layerBytes: number;
  /** What the proxy does, where there is one. */
  readonly mode?: (cell: Cell) => FaultMode;
  readonly plan: (cell: Cell) => CellPlan;
}

const kib = 1024;
const bigLayer = 1536 * kib;
const smallLayer = 512 * kib;
/** Budgets of the configuration, milliseconds: the defaults. */
export const budgets = { answerMs: 2000, slowMs: 25_000, stallMs: 5000 };
const retryAfter = '7';
const trickleBytesPerSecond = 40;
const patienceMs = 7000;

/** A registry that gives nothing: what nodes have is served, the rest is 503, both within 2 s. */
function outage(note?: string): (cell: Cell) => CellPlan {
  return ({ warmth }) => ({
    withHeads: true,
    expectation: nodesOr('unavailable', warmth, { note }),
  });
}

function nodesOr(
  otherwise: Outcome,
  warmth: Warmth,
  options: { readonly headersMs?: number; readonly note?: string | undefined } = {},
): Expectation {
  const { headersMs = budgets.answerMs, note } = options;
  const servable = warmth === 'warm';
  return {
    servable,
    outcomes: [servable ? 'content' : otherwise],
    headersMs,
    ...(note !== undefined && { note }),
  };
}

function isManifest(kind: Kind): boolean {
  return kind === 'tag' || kind === 'digest';
}

/** Only bodies of content are faulty: the registry is alive. */
export function isContentGet({ method, path }: Exchange): boolean {
  return method === 'GET' && isContent({ path });
}

function isContent({ path }: Pick<Exchange, 'path'>): boolean {
  return /\/(manifests|blobs)\//.test(path);
}

function halfOf(cell: Cell): number {
  return Math.floor(requestOf(cell).right.bytes.length / 2);
}

/** Headers come, the body does not come to its end. */
function midBody(options: { readonly waits: boolean }): (cell: Cell) => CellPlan {
  return ({ kind, warmth }) => {
    const servable = warmth === 'warm';
    const stalls = options.waits ? budgets.stallMs : 0;
    // A tag's answer is asked for again with HEAD, then its digest from whoever has it.
    const rounds = kind === 'tag' && !servable ? 2 : kind === 'digest' && servable ? 0 : 1;
    const headersMs = budgets.answerMs + (isManifest(kind) ? rounds * stalls : 0);
    if (servable) return { expectation: { servable, outcomes: ['content'], headersMs } };
    const note = isManifest(kind)
      ? undefined
      : 'goes on at the same registry, from the byte that is missing, as long as it makes progress';
    const outcomes: Outcome[] = isManifest(kind) ? ['unavailable'] : ['content', 'broken', 'left'];
    return {
      patienceMs: options.waits ? 2 * patienceMs : patienceMs,
      expectation: { servable, outcomes, headersMs, ...(note !== undefined && { note }) },
    };
  };
}

/** The registry says something that is not true of what it sends. */
function lie(options: {
  readonly cold: Partial<Record<Kind, readonly Outcome[]>>;
  readonly asUpstream?: (cell: Cell) => Buffer | undefined;
  readonly retries?: number;
}): (cell: Cell) => CellPlan {
  return (cell) => {
    const { kind, warmth } = cell;
    const asUpstream = options.asUpstream?.(cell);
    const servable = warmth === 'warm';
    const outcomes: Outcome[] = servable ? ['content'] : [...(options.cold[kind] ?? [])];
    if (asUpstream !== undefined) outcomes.push('as_upstream');
    const note =
      asUpstream === undefined
        ? undefined
        : 'a part of a blob cannot be checked; the client checks the whole';
    return {
      expectation: {
        servable,
        outcomes,
        headersMs: budgets.answerMs,
        ...(note !== undefined && { note }),
      },
      ...(asUpstream !== undefined && { asUpstream }),
      ...(options.retries !== undefined && { retries: options.retries }),
    };
  };
}

function alteredRange(cell: Cell): Buffer | undefined {
  if (cell.kind !== 'range') return undefined;
  const bytes = Buffer.from(requestOf(cell).right.bytes);
  bytes[10] = bytes[10]! ^ 1;
  return bytes;
}

function behindCdn(coldMs: number): (cell: Cell) => CellPlan {
  return ({ kind, warmth }) => {
    const { answerMs: headersMs } = budgets;
    if (isManifest(kind)) {
      return { withHeads: true, expectation: { servable: true, outcomes: ['content'], headersMs } };
    }
    return {
      expectation: nodesOr('unavailable', warmth, warmth === 'cold' ? { headersMs: coldMs } : {}),
    };
  };
}

function hasRetryAfter({ headers }: ClientAnswer, outcome: Outcome): string | undefined {
  // Once it has been said, what is left of it.
  const seconds = Number(headers['retry-after']);
  if (outcome !== 'unavailable' || (seconds >= 1 && seconds <= Number(retryAfter)))
    return undefined;
  return `Retry-After is ${headers['retry-after']}, not at most ${retryAfter}`;
}

const proxied = { reach: 'proxy', layerBytes: bigLayer } as const;
const neverRight: readonly Outcome[] = ['unavailable', 'broken', 'reset'];

/** Every way in which a registry fails. */
export const upstreamRows: readonly UpstreamRow[] = [
  {
    ...proxied,
    faultClass: 'refused',
    title: 'refuses connections',
    mode: () => ({ kind: 'refuse' }),
    plan: outage(),
  },
  {
    reach: 'dns',
    layerBytes: bigLayer,
    faultClass: 'dns',
    title: 'its name cannot be resolved',
    plan: outage(),
  },
  {
    reach: 'tls',
    layerBytes: bigLayer,
    faultClass: 'tls',
    title: 'presents a certificate that nobody trusts',
    plan: outage(),
  },
  {
    reach: 'blackHole',
    layerBytes: bigLayer,
    faultClass: 'black_hole',
    title: 'is a black hole: attempts to connect get no answer',
    plan: outage(),
  },
  {
    ...proxied,
    faultClass: 'silent',
    title: 'accepts connections and says nothing',
    mode: () => ({ kind: 'silent' }),
    plan: outage(),
  },
  {
    ...proxied,
    faultClass: 'slow_headers',
    title: 'needs 3 s for headers, and answers at /v2/: it is alive',
    mode: () => ({ kind: 'slowHead', delayMs: 3000, match: isContent }),
    plan: ({ kind, warmth }) => ({
      withHeads: true,
      expectation: {
        servable: true,
        outcomes: ['content'],
        headersMs: warmth === 'warm' && kind !== 'tag' ? budgets.answerMs : budgets.slowMs,
        note:
          kind === 'tag' ? 'waits: slow is not failed, and only the registry may name a tag' : '',
      },
      check: ({ headers }) =>
        kind === 'tag' && headers['salvor-source'] !== 'upstream'
          ? 'a tag was answered although its registry is alive'
          : undefined,
    }),
  },
  ...[500, 503].map((status): UpstreamRow => ({
    ...proxied,
    faultClass: `status_${status}`,
    title: `answers ${status} to everything`,
    mode: () => ({ kind: 'answer', status }),
    plan: outage(),
  })),
  {
    ...proxied,
    faultClass: 'status_429',
    title: 'answers 429 with Retry-After',
    mode: () => ({ kind: 'answer', status: 429, headers: { 'retry-after': retryAfter } }),
    plan: (cell) => ({
      ...outage(
        cell.warmth === 'cold' ? 'with its Retry-After; 429 is never passed on' : undefined,
      )(cell),
      check: hasRetryAfter,
    }),
  },
  {
    ...proxied,
    faultClass: 'truncated',
    title: 'ends bodies at half',
    mode: (cell) => ({
      kind: 'cut',
      afterBytes: halfOf(cell),
      how: 'fin',
      match: isContentGet,
    }),
    plan: midBody({ waits: false }),
  },
  {
    ...proxied,
    faultClass: 'stalled',
    title: 'stops in the middle of bodies and keeps the connection open',
    mode: (cell) => ({ kind: 'stall', afterBytes: halfOf(cell), match: isContentGet }),
    plan: midBody({ waits: true }),
  },
  {
    ...proxied,
    faultClass: 'trickling',
    title: `sends bodies byte by byte, ${trickleBytesPerSecond} a second`,
    mode: () => ({
      kind: 'trickle',
      bytesPerSecond: trickleBytesPerSecond,
      part: 'body',
      match: isContentGet,
    }),
    plan: midBody({ waits: true }),
  },
  {
    reach: 'proxy',
    layerBytes: smallLayer,
    faultClass: 'wrong_digest',
    title: 'sends wrong bytes, blobs up to 1 MiB',
    mode: () => ({ kind: 'alter', what: 'bytes', match: isContentGet }),
    plan: lie({
      cold: { tag: ['unavailable'], digest: ['unavailable'], blob: neverRight, range: [] },
      asUpstream: alteredRange,
    }),
  },
  {
    ...proxied,
    faultClass: 'wrong_digest_big',
    title: 'sends wrong bytes, blobs over 1 MiB, and the client tries again once',
    mode: () => ({ kind: 'alter', what: 'bytes', match: isContentGet }),
    plan: lie({
      cold: { tag: ['unavailable'], digest: ['unavailable'], blob: neverRight, range: [] },
      asUpstream: alteredRange,
      retries: 1,
    }),
  },
  {
    reach: 'proxy',
    layerBytes: smallLayer,
    faultClass: 'wrong_length',
    title: 'says and sends less than there is, blobs up to 1 MiB',
    mode: () => ({ kind: 'alter', what: 'length', match: isContentGet }),
    plan: lie({
      cold: {
        tag: ['unavailable'],
        digest: ['unavailable'],
        blob: neverRight,
        range: ['unavailable'],
      },
    }),
  },
  {
    ...proxied,
    faultClass: 'wrong_type',
    title: 'calls everything text/html',
    mode: () => ({ kind: 'alter', what: 'type', match: isContentGet }),
    plan: lie({
      cold: {
        tag: ['content', 'unavailable'],
        digest: ['content', 'unavailable'],
        blob: ['content'],
        range: ['content'],
      },
    }),
  },
  {
    reach: 'cdn',
    layerBytes: bigLayer,
    faultClass: 'cdn_refused',
    title: 'is well, and its CDN for blobs refuses connections',
    mode: () => ({ kind: 'refuse' }),
    plan: behindCdn(budgets.answerMs),
  },
  {
    reach: 'cdn',
    layerBytes: bigLayer,
    faultClass: 'cdn_silent',
    title: 'is well, and its CDN for blobs says nothing',
    mode: () => ({ kind: 'silent' }),
    plan: behindCdn(budgets.slowMs),
  },
  {
    reach: 'token',
    layerBytes: bigLayer,
    faultClass: 'token_down',
    title: 'wants tokens, and its token service is down',
    plan: outage(),
  },
];
