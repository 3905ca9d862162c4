const BEGIN =
  '# salvor: bootstrap begin. Other nodes, for as long as Salvor has not come to this one; ' +
  '`salvor hosts` puts its own entry in the place of this.';
const END = '# salvor: bootstrap end';
const entryLines =
  /^# salvor: bootstrap begin[^\n]*\n[\s\S]*?^# salvor: bootstrap end[^\n]*(\n|$)/m;

/** Whom a node asks that Salvor has not come to yet, and as what. Paths are the node's own. */
export interface BootstrapHosts {
  /** Such as https://10.0.0.1:7492, in the order in which they are asked. */
  readonly urls: readonly string[];
  readonly ca: string;
  readonly clientCertificate: string;
  readonly clientKey: string;
}

/**
 * What makes containerd ask other nodes' agents, in a form that every release from 1.6 on takes:
 * those that do not know dial_timeout pass over it, and https hosts have none of its troubles.
 */
export function bootstrapEntry(hosts: BootstrapHosts): string {
  const { ca, clientCertificate, clientKey } = hosts;
  const tables = hosts.urls.flatMap((url) => [
    `[host.${JSON.stringify(url)}]`,
    'capabilities = ["pull", "resolve"]',
    `ca = ${JSON.stringify(ca)}`,
    `client = [[${JSON.stringify(clientCertificate)}, ${JSON.stringify(clientKey)}]]`,
    'dial_timeout = "2s"',
  ]);
  return [BEGIN, ...tables, END, ''].join('\n');
}

/** Whether there is such an entry in a text. */
export function hasBootstrapEntry(text: string): boolean {
  return entryLines.test(text);
}

/** A text without the entry, everything else as it is; "" where nothing else says anything. */
export function withoutBootstrapEntry(text: string): string {
  const rest = text.replace(entryLines, '');
  return rest !== text && rest.trim() === '' ? '' : rest;
}
