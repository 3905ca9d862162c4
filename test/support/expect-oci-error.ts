import { expect } from 'vitest';
import type { GetAnswer } from './oci-client.ts';

/** An error as the distribution specification has it. */
export interface OciError {
  readonly code: string;
  readonly message: string;
  readonly detail?: unknown;
}

/**
 * Expects an error answer: the status, one of the codes, a body as the OCI distribution
 * specification wants it ("Error Codes") and a length that is exact.
 *
 * @returns the error
 */
export function expectOciError(
  answer: Pick<GetAnswer, 'status' | 'headers' | 'body'>,
  wanted: { readonly status: number; readonly code: string },
): OciError {
  const seen = answer.body.toString('utf8');
  expect(answer.status, seen).toBe(wanted.status);
  expect(answer.headers['content-type']).toMatch(/^application\/json\b/);
  expect(answer.headers['content-length']).toBe(String(answer.body.length));
  const { errors } = JSON.parse(seen) as { errors: OciError[] };
  expect(errors).toHaveLength(1);
  const error = errors[0]!;
  expect(error.code, seen).toBe(wanted.code);
  expect(error.message).toMatch(/\w+/);
  return error;
}
