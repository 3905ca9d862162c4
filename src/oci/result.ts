/**
 * What a reader of foreign text gives back: the value, or why there is none. Nothing that others
 * send is worth an exception.
 *
 * `reason` is a sentence without a capital or full stop, made to follow a colon. It quotes at most
 * a short piece of the input.
 */
export type Result<T> =
  { readonly ok: true; readonly value: T } | { readonly ok: false; readonly reason: string };
