/** One way to authenticate that a server offers. */
export interface Challenge {
  /** As the server wrote it; schemes compare without regard to case. */
  readonly scheme: string;
  /** Parameter names in lowercase. Of a name given twice, the first counts. */
  readonly params: Readonly<Record<string, string>>;
  /** What some schemes send in place of parameters. */
  readonly token68?: string;
}

const MAX_HEADER_CHARS = 8 * 1024;
const MAX_CHALLENGES = 16;
const MAX_PARAMS = 32;

const TOKEN = /[A-Za-z0-9!#$%&'*+.^_`|~-]+/y;
const TOKEN68 = /([A-Za-z0-9._~+/-]+=*)[ \t]*(?=,|$)/y;
const PARAM_NAME = /([A-Za-z0-9!#$%&'*+.^_`|~-]+)[ \t]*=[ \t]*/y;
const QUOTED_STRING = /"((?:[^"\\]|\\.)*)"/y;
// Beyond the grammar: registries exist that leave the quotes away around a URL.
const BARE_VALUE = /[^ \t,"]+/y;
const SEPARATORS = /[ \t,]*/y;
const SPACES = /[ \t]+/y;

const FIELD_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

/**
 * Reads WWW-Authenticate by RFC 9110 §11.6.1: several challenges in one header, several headers,
 * quoted strings with escapes. Reading ends at the first thing that makes no sense; what stood
 * before it counts, the challenge that it is part of does not. At most 8 KiB for each header and 16
 * challenges.
 */
export function parseChallenges(header: string | readonly string[] | undefined): Challenge[] {
  const headers = typeof header === 'string' ? [header] : (header ?? []);
  const challenges: Challenge[] = [];
  for (const text of headers) {
    // A line break inside a header is an attempt to smuggle another one.
    if (text.length > MAX_HEADER_CHARS || !FIELD_VALUE.test(text)) {
      continue;
    }
    const cursor = new Cursor(text);
    while (challenges.length < MAX_CHALLENGES) {
      const challenge = readChallenge(cursor);
      if (challenge === undefined) {
        break;
      }
      challenges.push(challenge);
    }
  }
  return challenges;
}

/** A place in a text that moves over what a pattern matches exactly there. */
class Cursor {
  readonly #text: string;
  #position = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get atEnd(): boolean {
    return this.#position >= this.#text.length;
  }

  /** @param pattern sticky */
  take(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#position;
    const match = pattern.exec(this.#text);
    if (match === null) {
      return undefined;
    }
    this.#position += match[0].length;
    return match;
  }
}

function readChallenge(cursor: Cursor): Challenge | undefined {
  cursor.take(SEPARATORS);
  const scheme = cursor.take(TOKEN)?.[0];
  if (scheme === undefined) {
    return undefined;
  }
  if (cursor.take(SPACES) === undefined) {
    // Only a comma or the end may follow a scheme that stands alone.
    return cursor.atEnd || cursor.take(/,/y) !== undefined ? { scheme, params: {} } : undefined;
  }
  const token68 = cursor.take(TOKEN68)?.[1];
  if (token68 !== undefined) {
    return { scheme, params: {}, token68 };
  }
  const params = readParams(cursor);
  return params === undefined ? undefined : { scheme, params };
}

function readParams(cursor: Cursor): Record<string, string> | undefined {
  const params = new Map<string, string>();
  for (let count = 0; count <= MAX_PARAMS; count += 1) {
    cursor.take(SEPARATORS);
    const name = cursor.take(PARAM_NAME)?.[1]?.toLowerCase();
    if (name === undefined) {
      // fromEntries defines properties, so that a name "__proto__" is a name like any other.
      return Object.fromEntries(params);
    }
    const value =
      cursor.take(QUOTED_STRING)?.[1]?.replaceAll(/\\(.)/g, '$1') ?? cursor.take(BARE_VALUE)?.[0];
    if (value === undefined) {
      return undefined;
    }
    if (!params.has(name)) {
      params.set(name, value);
    }
  }
  return undefined;
}
