import { ociErrorBody, type OciErrorCode } from '../oci/error-body.ts';

/** What goes out for a request, as far as HTTP is concerned. */
export interface WireAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | number | string[]>>;
  readonly body?: unknown;
}

/** An error as the distribution specification wants it. */
export interface OciError {
  readonly code: OciErrorCode;
  readonly message: string;
  /** Goes to the client as it is: never a secret. */
  readonly detail?: unknown;
}

/** Status, headers and body of an error answer. */
export function ociErrorAnswer(
  status: number,
  error: OciError,
  headers: Readonly<Record<string, string | string[]>> = {},
): WireAnswer & { readonly body: Buffer } {
  const body = Buffer.from(ociErrorBody(error.code, error.message, error.detail));
  return {
    status,
    headers: { ...headers, 'content-type': 'application/json', 'content-length': body.length },
    body,
  };
}
