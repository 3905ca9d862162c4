/** This machine's processor as image indexes name it (the values of Go's GOARCH). */
export function machineArchitecture(): string {
  const others: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };
  return others[process.arch] ?? process.arch;
}
