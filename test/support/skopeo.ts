import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { TestScope } from './test-scope.ts';
import { toolEnv, toolPath } from './tools.ts';

const run = promisify(execFile);
const skopeoTimeoutMs = 110_000;

/**
 * Copies an image with skopeo, over plain http where a registry is named.
 *
 * @param copy.from such as "docker://127.0.0.1:5000/team/app:1"
 * @param copy.to such as "dir:/path" or "oci:/path:tag"
 * @param copy.all every platform of an index instead of this machine's
 * @throws when skopeo fails, with what it wrote
 */
export async function skopeoCopy(
  scope: TestScope,
  copy: {
    readonly from: string;
    readonly to: string;
    readonly all?: boolean;
    /** "user:password" for the source. */
    readonly credentials?: string;
  },
): Promise<void> {
  const flags = [
    '--src-tls-verify=false',
    '--dest-tls-verify=false',
    ...(copy.all === true ? ['--all'] : []),
    ...(copy.credentials === undefined ? [] : ['--src-creds', copy.credentials]),
  ];
  const global = ['--insecure-policy', '--tmpdir', scope.directory];
  await run(toolPath('skopeo'), [...global, 'copy', ...flags, copy.from, copy.to], {
    // Credentials that the machine's user may have are none of a test's business.
    env: { ...toolEnv('skopeo'), HOME: scope.directory, XDG_RUNTIME_DIR: scope.directory },
    timeout: skopeoTimeoutMs,
  });
}
