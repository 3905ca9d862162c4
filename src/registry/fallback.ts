import type { Attempt } from './trace.ts';

/** What was wrong with an upstream when something else answered, in a word. Label of metrics. */
export type FallbackCause = (typeof CAUSES)[number];

/**
 * Why a request was answered, or its body continued, from nodes or memory although its upstream
 * was the one to ask.
 *
 * @param request.source who gave the bytes: "upstream", "memory", "node/<name>", several with
 *   commas between
 * @param request.passedOver why the upstream was not the first to be asked, where it has trouble
 * @param request.prefersNodes policy wants nodes to be asked first: that they overtake the upstream
 *   says nothing about it
 * @returns undefined when the upstream gave everything, or nothing was wrong with it
 */
export function fallbackCause(request: {
  readonly source: string;
  readonly attempts: readonly Attempt[];
  readonly passedOver: string | undefined;
  readonly prefersNodes: boolean;
}): FallbackCause | undefined {
  const { attempts, passedOver, prefersNodes, source } = request;
  if (source !== 'memory' && !source.includes('node/')) return undefined;
  // What came first made the others be asked; what came later is its consequence.
  const trouble =
    passedOver ??
    attempts.find((attempt) => attempt.source === 'upstream' && attempt.outcome !== 'ok')?.outcome;
  if (trouble === undefined) return undefined;
  if (trouble === 'overtaken') return prefersNodes ? undefined : 'slow';
  const word = WORDS[trouble] ?? trouble;
  return CAUSES.find((cause) => cause === word) ?? 'other';
}

/** Whether the request would have failed, had there been nobody but the upstream. */
export function wouldHaveFailed(cause: FallbackCause): boolean {
  return cause !== 'slow';
}

/** Every cause there is. */
export const CAUSES = [
  'refused',
  'reset',
  'dns',
  'tls',
  'timeout',
  'proxy',
  'gateway',
  'local',
  'server_error',
  'rate_limited',
  'token_service',
  'bad_answer',
  'cut',
  'stalled',
  'wrong_bytes',
  'gone',
  'circuit_open',
  'forbidden_address',
  'slow',
  'other',
] as const;

/** Outcomes of attempts that go by another name as causes. */
const WORDS: Readonly<Record<string, FallbackCause>> = {
  missing: 'gone',
  redirect: 'bad_answer',
  wrong_size: 'bad_answer',
  wrong_range: 'bad_answer',
  too_long: 'bad_answer',
};
