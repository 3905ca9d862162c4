import { execFileSync } from 'node:child_process';
import { cpus, release, totalmem } from 'node:os';
import { findTool, toolEnv, tools } from '../support/tools.ts';

/** Where and when results were measured. */
export interface Machine {
  readonly cpus: number;
  readonly model: string;
  readonly memoryGib: number;
  readonly kernel: string;
  readonly node: string;
  /** ISO 8601, UTC. */
  readonly date: string;
  /** Versions of the programs that Salvor is compared with, by name. */
  readonly versions: Readonly<Record<string, string>>;
}

/** Describes this machine, at this moment. */
export function describeMachine(): Machine {
  const processors = cpus();
  return {
    cpus: processors.length,
    model: processors[0]?.model.trim() ?? 'unknown',
    memoryGib: Math.round(totalmem() / 1024 ** 3),
    kernel: release(),
    node: process.version,
    date: new Date().toISOString(),
    versions: Object.fromEntries(
      ['containerd', 'ctr', 'docker-registry', 'nginx'].map((name) => [name, versionOf(name)]),
    ),
  };
}

function versionOf(name: string): string {
  const path = findTool(name);
  const tool = tools.find((one) => one.name === name);
  if (path === undefined || tool === undefined) return 'not there';
  // nginx says its version where others complain.
  const command = `"$0" "$@" 2>&1`;
  const output = execFileSync('/bin/sh', ['-c', command, path, ...tool.versionArguments], {
    env: toolEnv(name),
    encoding: 'utf8',
    timeout: 10_000,
  });
  return /v?(\d+\.\d+\.\d+)/.exec(output)?.[1] ?? output.trim();
}
