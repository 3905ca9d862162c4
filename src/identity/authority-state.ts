/** One authority; the key is gone once it signs nothing more. */
export interface KeptAuthority {
  /** PEM; several certificates where it stands for whatever was trusted before. */
  readonly certificate: string;
  readonly key?: string;
}

/**
 * Where the authority stands between one and the next:
 * - `steady`: one signs, and is trusted.
 * - `introducing`: the next one is trusted, too; the current one still signs.
 * - `replacing`: the next one has become the current one and signs; the previous one is still
 *   trusted.
 */
export type Phase = 'steady' | 'introducing' | 'replacing';

/** Everything that is remembered of the authority of a cluster. */
export interface AuthorityState {
  readonly phase: Phase;
  readonly current: KeptAuthority;
  /** While introducing. */
  readonly next?: KeptAuthority;
  /** While replacing. */
  readonly previous?: KeptAuthority;
  /**
   * When every identity had come to agree with this phase, milliseconds since the epoch; undefined
   * as long as that is not sure.
   */
  readonly distributedAtMs?: number;
  /** Names of all identities that were ever issued. */
  readonly targets: readonly string[];
}

const VERSION = 1;

/** Writes a state as JSON. */
export function writeState(state: AuthorityState): string {
  return `${JSON.stringify({ version: VERSION, ...state }, undefined, 2)}\n`;
}

/**
 * Reads what {@link writeState} has written.
 *
 * @throws when it is anything else; the message holds nothing of it
 */
export function readState(text: string): AuthorityState {
  const broken = new Error('Cannot read the authority: it is not in the format of this version');
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    throw broken;
  }
  if (!isRecord(content) || content['version'] !== VERSION) throw broken;
  const { phase, distributedAtMs, targets } = content;
  const [current, next, previous] = ['current', 'next', 'previous'].map((name) =>
    authorityOf(content[name]),
  );
  const isComplete =
    current !== undefined &&
    (phase === 'steady' ||
      (phase === 'introducing' && next !== undefined) ||
      (phase === 'replacing' && previous !== undefined));
  if (!isComplete || !Array.isArray(targets)) throw broken;
  return {
    phase,
    current,
    ...(next && { next }),
    ...(previous && { previous }),
    ...(typeof distributedAtMs === 'number' && { distributedAtMs }),
    targets: targets.filter((each) => typeof each === 'string'),
  };
}

function authorityOf(value: unknown): KeptAuthority | undefined {
  if (!isRecord(value) || typeof value['certificate'] !== 'string') return undefined;
  const { certificate, key } = value;
  return { certificate: certificate, ...(typeof key === 'string' && { key }) };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
