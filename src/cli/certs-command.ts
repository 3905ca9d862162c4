import { isIP } from 'node:net';
import { Command, InvalidArgumentError, Option } from 'commander';
import { parseQuantity } from '../config/quantity.ts';
import { textFormats } from '../config/text-format.ts';
import type { Role } from '../rpc/identity-roles.ts';
import type { CertsTarget } from './certs.ts';

// Not from where roles are told apart: that is loaded when a command is called.
const ROLES = ['agent', 'registry', 'bootstrap'] as const satisfies readonly Role[];

interface TargetFlags {
  readonly authority?: string;
  readonly out?: readonly string[];
  readonly roles: readonly Role[];
  readonly combined: boolean;
  readonly namespace?: string;
  readonly authoritySecret?: string;
  readonly agentSecret?: string;
  readonly registrySecret?: string;
  readonly bootstrapSecret?: string;
  readonly kubeconfig?: string | true;
  readonly json: boolean;
}

interface IssueFlags extends TargetFlags {
  readonly validity: number;
  readonly authorityValidity: number;
  readonly settle: number;
  readonly address?: readonly string[];
  readonly forget?: readonly string[];
}

/** `salvor certs`: the certificates by which nodes know each other. */
export function addCerts(
  program: Command,
  dependencies: { readonly writeOut: (text: string) => void },
): void {
  const group = program
    .command('certs')
    .summary('Make, show and replace the certificates by which nodes know each other.')
    .description(
      'Make, show and replace the certificates by which nodes know each other.\n\nIn directories ' +
        '(--authority, --out) or in Secrets of Kubernetes (--authority-secret, --agent-secret, ' +
        '--registry-secret, --bootstrap-secret). The authority never belongs on a node.',
    )
    .helpOption('-h, --help', 'Print help.');
  const { writeOut } = dependencies;
  addIssuing(group, {
    name: 'issue',
    summary: 'Make what is missing, renew what has less than a third of its life left.',
  }).action(async (flags: IssueFlags) => {
    writeOut(await issue(flags, {}));
  });
  addIssuing(group, {
    name: 'rotate',
    summary:
      'As issue, and replace the authority: each run takes the next step, once all nodes have had ' +
      'time for the last one.',
  })
    .option('--identities', 'Leave the authority; issue all identities anew.', false)
    .action(async (flags: IssueFlags & { identities: boolean }) => {
      const renewIdentities = flags.identities;
      writeOut(await issue(flags, { renewIdentities, replaceAuthority: !renewIdentities }));
    });
  addTargets(group, { name: 'show', summary: 'Show who issued what, and until when.' }).action(
    async (flags: TargetFlags) => {
      const { runCertsShow } = await import('./certs.ts');
      writeOut(await runCertsShow(targetOf(flags), flags));
    },
  );
}

async function issue(
  flags: IssueFlags,
  request: { replaceAuthority?: boolean; renewIdentities?: boolean },
): Promise<string> {
  const { runCertsIssue } = await import('./certs.ts');
  return runCertsIssue(targetOf(flags), {
    request: {
      ...request,
      forget: flags.forget ?? [],
      ...(flags.address && { agentAddresses: flags.address }),
    },
    times: {
      identityValidMs: flags.validity,
      authorityValidMs: flags.authorityValidity,
      settleMs: flags.settle,
    },
    json: flags.json,
  });
}

function targetOf(flags: TargetFlags): CertsTarget {
  const { authority, authoritySecret, agentSecret, registrySecret, kubeconfig } = flags;
  const { bootstrapSecret } = flags;
  return {
    ...(authority !== undefined && { authorityDirectory: authority }),
    directories: flags.out ?? [],
    roles: flags.roles,
    isCombined: flags.combined,
    namespace: flags.namespace ?? '',
    ...(authoritySecret !== undefined && { authoritySecret }),
    ...(agentSecret !== undefined && { agentSecret }),
    ...(registrySecret !== undefined && { registrySecret }),
    ...(bootstrapSecret !== undefined && { bootstrapSecret }),
    ...(kubeconfig !== undefined && { kubeconfig: kubeconfig === true ? '' : kubeconfig }),
  };
}

function addTargets(group: Command, options: { name: string; summary: string }): Command {
  return group
    .command(options.name)
    .summary(options.summary)
    .description(options.summary)
    .helpOption('-h, --help', 'Print help.')
    .allowExcessArguments(false)
    .option('--authority <dir>', 'Directory of the authority; not one of a node.')
    .option(
      '--out <dir>',
      'Directory for identities: agent-tls and registry-tls in it, each with ca.crt, tls.crt and ' +
        'tls.key. May be given several times.',
      collect,
    )
    .addOption(
      new Option(
        '--roles <roles>',
        'For which roles there is an identity in --out: agent, registry, bootstrap.',
      )
        .default(['agent', 'registry'], 'agent,registry')
        .argParser(parseRoles),
    )
    .option(
      '--combined',
      'One identity for all roles, in --out itself: for processes with one configuration.',
      false,
    )
    .option('--namespace <name>', "Namespace of the Secrets. Default: the Pod's, or the context's.")
    .option('--authority-secret <name>', 'Secret of the authority; no node needs to read it.')
    .option('--agent-secret <name>', 'Secret for the identity of agents.')
    .option('--registry-secret <name>', 'Secret for the identity of registries.')
    .option(
      '--bootstrap-secret <name>',
      'Secret for the identity that containerd shows on nodes that Salvor has not come to yet.',
    )
    .option('--kubeconfig [file]', "Use a kubeconfig file, not the Pod's service account.")
    .option('--json', 'Print JSON.', false);
}

function addIssuing(group: Command, options: { name: string; summary: string }): Command {
  return addTargets(group, options)
    .addOption(duration('--validity <time>', 'Lifetime of identities.', '365d'))
    .addOption(duration('--authority-validity <time>', 'Lifetime of authorities.', '3650d'))
    .addOption(
      duration('--settle <time>', 'What all nodes take at most to see what was issued.', '1h'),
    )
    .option(
      '--address <address>',
      'IP address or DNS name under which containerd of new nodes reaches an agent; may be given ' +
        'several times. Goes into identities of agents. Default: those in the present ones.',
      collectAddress,
    )
    .option('--forget <name>', 'An identity that is gone for good.', collect);
}

function duration(flag: string, description: string, text: string): Option {
  return new Option(flag, description).default(parseTime(text), text).argParser(parseTime);
}

function parseTime(text: string): number {
  const timeMs = parseQuantity(text, 'milliseconds');
  if (timeMs === undefined) throw new InvalidArgumentError('Expected a time such as 365d or 1h.');
  return timeMs;
}

function parseRoles(text: string): Role[] {
  const roles = text.split(',');
  const isKnown = (role: string): role is Role => (ROLES as readonly string[]).includes(role);
  if (!roles.every(isKnown)) {
    throw new InvalidArgumentError(`Expected one or more of ${ROLES.join(', ')}.`);
  }
  return [...new Set(roles)];
}

function collectAddress(value: string, before: readonly string[] = []): readonly string[] {
  const isName = textFormats.dnsName.matches(value.replace(/^\*\./, '')) && !/^[\d.]+$/.test(value);
  if (isIP(value) === 0 && !isName) {
    throw new InvalidArgumentError('Expected an IP address or a DNS name, without a port.');
  }
  // Else whoever has the certificate could act in that role.
  if (value.toLowerCase().endsWith('.salvor.internal')) {
    throw new InvalidArgumentError('Names of roles are no addresses; see --roles.');
  }
  return [...before, value];
}

function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}
