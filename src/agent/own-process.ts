import { readFile, stat } from 'node:fs/promises';

/**
 * Whether a process may be taken for this node's registry: one that runs this program, or that has
 * the agent's group and is not root. In that group are those whom the agent's socket is for, and
 * nobody else, so they can name no process that they could not end themselves. The executable of
 * another user's process is not to be seen without the right to read its memory (CAP_SYS_PTRACE).
 *
 * @returns false as well where this process may not end it: who watches must be able to
 */
export async function isOwnProcess(pid: number): Promise<boolean> {
  if (pid === process.pid || !mayEnd(pid)) return false;
  return (await runsOwnProgram(pid)) || (await isOfOwnGroup(pid));
}

function mayEnd(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** Whether it runs the same executable as this process. */
async function runsOwnProgram(pid: number): Promise<boolean> {
  try {
    const [own, other] = await Promise.all([stat('/proc/self/exe'), stat(`/proc/${pid}/exe`)]);
    return own.dev === other.dev && own.ino === other.ino;
  } catch {
    return false;
  }
}

async function isOfOwnGroup(pid: number): Promise<boolean> {
  const ownGroup = String(process.getegid?.() ?? 0);
  if (ownGroup === '0') return false;
  try {
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    // Real, effective, saved and of files: proc_pid_status(5).
    const users = /^Uid:\t(.+)$/m.exec(status)?.[1]?.split('\t') ?? ['0'];
    const groups = /^Gid:\t(.+)$/m.exec(status)?.[1]?.split('\t') ?? ['0'];
    return users.every((user) => user !== '0') && groups.every((group) => group === ownGroup);
  } catch {
    return false;
  }
}
