#!/usr/bin/env node
import { runProgram } from './cli/program.ts';
import { readVersion } from './cli/version.ts';

const exitCode = await runProgram(process.argv.slice(2), {
  version: readVersion(),
  env: process.env,
  signals: process,
  // Each command's code is loaded when it is called: a registry holds no agent in memory.
  loaders: {
    registry: async () => (await import('./cli/registry.ts')).runRegistry,
    agent: async () => (await import('./cli/agent.ts')).runAgent,
    start: async () => (await import('./cli/start.ts')).runStart,
    demo: async () => (await import('./cli/demo.ts')).runDemo,
  },
  writeOut: (text) => void process.stdout.write(text),
  isErrorTerminal: process.stderr.isTTY,
  writeError: (text) => void process.stderr.write(text),
});
// Everything has been stopped by now; a handle left behind must not keep the process.
process.exit(exitCode);
