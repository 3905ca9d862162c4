import type { Command } from 'commander';
import type { BootstrapHostsOptions } from './bootstrap-hosts.ts';

/** `salvor hosts bootstrap`: what a machine's image holds before Salvor has come to the node. */
export function addBootstrapHosts(
  hosts: Command,
  dependencies: { readonly writeOut: (text: string) => void },
): void {
  const summary =
    "Make the hosts.toml of a machine's image: until Salvor comes to the node, containerd asks " +
    'other nodes first.';
  hosts
    .command('bootstrap')
    .summary(summary)
    .description(
      `${summary}\n\nAgents answer there where agent.bootstrap.listen is given. ` +
        '`salvor hosts write` puts its own entry in the place of this one. Not for a node on which ' +
        'Salvor may be starting: `salvor hosts write` does not wait for this.',
    )
    .helpOption('-h, --help', 'Print help.')
    .allowExcessArguments(false)
    .requiredOption(
      '--neighbour <address>',
      'An agent, such as 10.0.0.1 or 10.0.0.1:7492; may be given several times, they are asked in ' +
        'that order. Its certificate must name the address.',
      (text: string, before: readonly string[] | undefined) => [...(before ?? []), text],
    )
    .option('--ca <file>', 'On the node: the authority of agents.', '/etc/salvor/bootstrap/ca.crt')
    .option(
      '--client-cert <file>',
      'On the node: a certificate for the role bootstrap.',
      '/etc/salvor/bootstrap/tls.crt',
    )
    .option('--client-key <file>', 'On the node: its key.', '/etc/salvor/bootstrap/tls.key')
    .option('--dir <directory>', "Write it below this directory of containerd's config_path.")
    .option('--registry <host>', 'Only for images of this registry.')
    .action(async (options: BootstrapHostsOptions) => {
      const { runBootstrapHosts } = await import('./bootstrap-hosts.ts');
      dependencies.writeOut(await runBootstrapHosts(options));
    });
}
