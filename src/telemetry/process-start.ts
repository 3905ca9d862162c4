import { readFile } from 'node:fs/promises';

/**
 * When a process began, in the kernel's own ticks: together with its number it names a process for
 * good, in every container of a machine alike.
 *
 * @returns an empty text when there is no such process to be seen from here
 */
export async function processStart(pid: number): Promise<string> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    // Field 22 of proc_pid_stat(5), counted from behind the command's closing parenthesis.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  } catch {
    return '';
  }
}
