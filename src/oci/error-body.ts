/**
 * The error codes of the OCI distribution specification, and two of our own: UNAVAILABLE when
 * neither the upstream nor a node can give the content now, UNKNOWN for a fault of ours.
 */
export type OciErrorCode =
  | 'BLOB_UNKNOWN'
  | 'BLOB_UPLOAD_INVALID'
  | 'BLOB_UPLOAD_UNKNOWN'
  | 'DIGEST_INVALID'
  | 'MANIFEST_BLOB_UNKNOWN'
  | 'MANIFEST_INVALID'
  | 'MANIFEST_UNKNOWN'
  | 'NAME_INVALID'
  | 'NAME_UNKNOWN'
  | 'SIZE_INVALID'
  | 'UNAUTHORIZED'
  | 'DENIED'
  | 'UNSUPPORTED'
  | 'TOOMANYREQUESTS'
  | 'UNAVAILABLE'
  | 'UNKNOWN';

/** One error out of another registry's answer. */
export interface RemoteError {
  /** As the other side wrote it; "" when it gave none. */
  readonly code: string;
  readonly message: string;
}

const MAX_BODY_BYTES = 64 * 1024;
const MAX_ERRORS = 16;
const MAX_CODE_CHARS = 64;
const MAX_MESSAGE_CHARS = 1024;

/**
 * The JSON body of an error answer.
 *
 * @param detail anything that JSON can hold
 * @throws TypeError when `detail` cannot be written as JSON (a cycle, a bigint)
 */
export function ociErrorBody(code: OciErrorCode, message: string, detail?: unknown): string {
  return JSON.stringify({ errors: [{ code, message, detail }] });
}

/**
 * Reads an error answer of another registry, for logs and messages. Never throws: what cannot be
 * understood gives an empty list. Reads at most 64 KiB and 16 errors, shortens long texts, and
 * turns control characters into spaces.
 */
export function parseErrorBody(bytes: Uint8Array): RemoteError[] {
  if (bytes.byteLength > MAX_BODY_BYTES) {
    return [];
  }
  let body: unknown;
  try {
    body = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return [];
  }
  const errors = field(body, 'errors');
  if (!Array.isArray(errors)) {
    return [];
  }
  return errors
    .slice(0, MAX_ERRORS)
    .map((error: unknown) => ({
      code: plainText(field(error, 'code'), MAX_CODE_CHARS),
      message: plainText(field(error, 'message'), MAX_MESSAGE_CHARS),
    }))
    .filter((error) => error.code !== '' || error.message !== '');
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null
    ? (value as Record<string, unknown>)[name]
    : undefined;
}

function plainText(value: unknown, maxChars: number): string {
  return typeof value === 'string'
    ? value
        .slice(0, maxChars)
        .replaceAll(/[\p{Cc}\u2028\u2029]/gu, ' ')
        .trim()
    : '';
}
