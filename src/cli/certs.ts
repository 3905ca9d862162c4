import { join, resolve } from 'node:path';
import { CertificateIssuer, type IssueRequest } from '../identity/certificate-issuer.ts';
import { DirectoryAuthority, DirectoryIdentity } from '../identity/directory-stores.ts';
import { describeIdentities, type IdentityReport } from '../identity/identity-report.ts';
import type { AuthorityStore, IdentityStore } from '../identity/identity-store.ts';
import { SecretAuthority, SecretIdentity } from '../identity/secret-stores.ts';
import { API_CALLS } from '../kubernetes/api-calls.ts';
import { inClusterAccess } from '../kubernetes/cluster-access.ts';
import { KubeApi } from '../kubernetes/kube-api.ts';
import { kubeconfigAccess } from '../kubernetes/kubeconfig-access.ts';
import { ROLES, type Role } from '../rpc/identity-roles.ts';

const CALL_TIMEOUT_MS = 15_000;

/** Where certificates are, as the flags of `salvor certs` say it. */
export interface CertsTarget {
  /** Directories, or Secrets. */
  readonly authorityDirectory?: string;
  readonly directories: readonly string[];
  readonly roles: readonly Role[];
  /** One identity for all roles in the directory itself; else a directory in it for each. */
  readonly isCombined: boolean;
  readonly namespace: string;
  readonly authoritySecret?: string;
  readonly agentSecret?: string;
  readonly registrySecret?: string;
  readonly bootstrapSecret?: string;
  /** undefined: the service account of this Pod; empty: $KUBECONFIG or the home directory's. */
  readonly kubeconfig?: string;
}

/** How long certificates live, and how long nodes may take to see new ones, milliseconds. */
export interface CertsTimes {
  readonly identityValidMs: number;
  readonly authorityValidMs: number;
  readonly settleMs: number;
}

interface Stores {
  readonly authority: AuthorityStore;
  readonly identities: readonly IdentityStore[];
}

/**
 * `salvor certs issue` and `rotate`.
 *
 * @returns what to print
 * @throws when something cannot be read or written; another run goes on from there
 */
export async function runCertsIssue(
  target: CertsTarget,
  options: { readonly request: IssueRequest; readonly times: CertsTimes; readonly json: boolean },
): Promise<string> {
  const stores = storesOf(target);
  const issuer = new CertificateIssuer(options.times, { ...stores, now: Date.now });
  const report = await issuer.run(options.request);
  if (options.json) return `${JSON.stringify(report, undefined, 2)}\n`;
  const lines = report.done.length === 0 ? ['nothing to do'] : report.done;
  const next =
    report.nextStepAtMs === undefined
      ? []
      : [
          `the authority is being replaced: run this again after ` +
            `${new Date(report.nextStepAtMs).toISOString()}, when all nodes have taken this over`,
        ];
  return [...lines, ...next].map((line) => `${line}\n`).join('');
}

/**
 * `salvor certs show`.
 *
 * @returns what to print; nothing of keys
 */
export async function runCertsShow(
  target: CertsTarget,
  options: { readonly json: boolean },
): Promise<string> {
  const report = await describeIdentities(storesOf(target), { nowMs: Date.now() });
  return options.json ? `${JSON.stringify(report, undefined, 2)}\n` : describe(report);
}

/** @throws when neither directories nor Secrets are named, or both are */
function storesOf(target: CertsTarget): Stores {
  const { authorityDirectory, authoritySecret, directories } = target;
  const { agentSecret, bootstrapSecret, registrySecret } = target;
  const secrets = [agentSecret, registrySecret, bootstrapSecret].filter(
    (each) => each !== undefined,
  );
  const inDirectories = authorityDirectory !== undefined && directories.length > 0;
  const inSecrets = authoritySecret !== undefined && secrets.length > 0;
  const isMixed =
    (authorityDirectory !== undefined || directories.length > 0) &&
    (authoritySecret !== undefined || secrets.length > 0);
  if (isMixed || (!inDirectories && !inSecrets)) {
    throw new Error(
      'Cannot tell where certificates go: give --authority and --out for directories, or ' +
        '--authority-secret with --agent-secret and --registry-secret',
    );
  }
  return inDirectories
    ? {
        authority: new DirectoryAuthority(resolve(authorityDirectory)),
        identities: directories.flatMap((each) => directoryIdentities(resolve(each), target)),
      }
    : secretStores(target, authoritySecret ?? '');
}

function directoryIdentities(
  directory: string,
  { isCombined, roles }: CertsTarget,
): readonly IdentityStore[] {
  if (isCombined) return [new DirectoryIdentity(directory, roles)];
  return roles.map((role) => new DirectoryIdentity(join(directory, `${role}-tls`), [role]));
}

function secretStores(target: CertsTarget, authoritySecret: string): Stores {
  const { namespace, kubeconfig } = target;
  const connect = () =>
    kubeconfig === undefined ? inClusterAccess() : kubeconfigAccess(kubeconfig);
  const calls = API_CALLS.certificates;
  const api = new KubeApi({ timeoutMs: CALL_TIMEOUT_MS }, { connect, calls });
  const names: Readonly<Record<Role, string | undefined>> = {
    agent: target.agentSecret,
    registry: target.registrySecret,
    bootstrap: target.bootstrapSecret,
  };
  const identities = ROLES.flatMap((role) => {
    const name = names[role];
    return name === undefined ? [] : [new SecretIdentity({ namespace, name }, [role], { api })];
  });
  return {
    authority: new SecretAuthority({ namespace, name: authoritySecret }, { api }),
    identities,
  };
}

function describe({ authority, identities }: IdentityReport): string {
  const lines = [
    `authority  ${authority.name}  ${authority.phase}`,
    ...authority.certificates.map(
      ({ use, subject, notAfter }) => `  ${use}: ${subject}, until ${notAfter}`,
    ),
    ...identities.flatMap((each) => [
      `identity   ${each.name}`,
      ...(each.problem === undefined ? [] : [`  problem: ${each.problem}`]),
      ...(each.subject === undefined
        ? []
        : [`  ${each.subject}, by ${each.issuer ?? ''}, until ${each.notAfter ?? ''}`]),
    ]),
  ];
  return lines.map((line) => `${line}\n`).join('');
}
