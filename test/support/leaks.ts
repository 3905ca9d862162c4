import { readFile, readdir, readlink } from 'node:fs/promises';

const listenState = '0A';
const establishedState = '01';
// The kernel counts processor time in hundredths of a second for every program.
const ticksPerSecond = 100;

/** TCP sockets of a process, by state. */
export interface SocketCounts {
  readonly listening: number;
  readonly established: number;
  /** In any other state: closing, half open. */
  readonly other: number;
}

/** @returns how many files and sockets a process has open */
export async function openFileDescriptors(pid: number): Promise<number> {
  return (await readdir(`/proc/${pid}/fd`)).length;
}

/** Counts the TCP sockets that a process has open. */
export async function socketCounts(pid: number): Promise<SocketCounts> {
  const sockets = await socketsOf(pid);
  const count = (state: string): number =>
    sockets.filter((socket) => socket.state === state).length;
  const listening = count(listenState);
  const established = count(establishedState);
  return { listening, established, other: sockets.length - listening - established };
}

/** @returns the TCP ports on which a process listens, in order */
export async function listeningPorts(pid: number): Promise<number[]> {
  const sockets = await socketsOf(pid);
  const ports = sockets.filter(({ state }) => state === listenState).map(({ port }) => port);
  return ports.sort((a, b) => a - b);
}

/** @returns resident memory of a process in bytes: its VmRSS */
export async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const match = /^VmRSS:\s+(\d+) kB$/m.exec(status);
  if (match === null) throw new Error(`Cannot read the resident memory of process ${pid}`);
  return Number(match[1]) * 1024;
}

/** @returns processor time that a process has used, user and system, in seconds */
export async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  // The name of the program, in parentheses, may itself have spaces.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

/** @returns other processes whose command line contains the text, such as a directory */
export async function processesNaming(part: string): Promise<{ pid: number; command: string }[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(
    pids.map(async (pid) => {
      // It may have ended since the directory was read.
      const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      return { pid, command: line.replaceAll('\0', ' ').trim() };
    }),
  );
  return found.filter(({ pid, command }) => pid !== process.pid && command.includes(part));
}

async function socketsOf(pid: number): Promise<{ state: string; port: number }[]> {
  const inodes = await socketInodes(pid);
  const tables = await Promise.all(
    ['tcp', 'tcp6'].map((name) => readFile(`/proc/${pid}/net/${name}`, 'utf8').catch(() => '')),
  );
  return tables
    .flatMap((table) => table.split('\n').slice(1))
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => inodes.has(fields[9] ?? ''))
    .map((fields) => ({
      state: fields[3] ?? '',
      port: Number.parseInt(fields[1]?.split(':')[1] ?? '', 16),
    }));
}

async function socketInodes(pid: number): Promise<Set<string>> {
  const directory = `/proc/${pid}/fd`;
  const names = await readdir(directory);
  const links = await Promise.all(
    // It may have been closed since the directory was read.
    names.map((name) => readlink(`${directory}/${name}`).catch(() => '')),
  );
  const inodes = links.map((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1]);
  return new Set(inodes.filter((inode) => inode !== undefined));
}
