import { credentials } from '@grpc/grpc-js';
import { AgentClient } from '../../src/rpc/agent-client.ts';
import { processStart } from '../../src/telemetry/process-start.ts';

// Run as a process of its own: gives an agent signs of life until it is told to part in peace.
const [, , socket = '', timeoutMs = ''] = process.argv;
const client = new AgentClient(
  { target: `unix:${socket}`, name: 'the own agent', windowBytes: 65_536 },
  { credentials: credentials.createInsecure() },
);
const watch = client.watch(
  {
    pid: process.pid,
    timeoutMs: Number(timeoutMs),
    processStart: await processStart(process.pid),
  },
  { onEnd: (error) => void process.stdout.write(`over ${error.kind}\n`) },
);
const beat = setInterval(() => watch.beat(), Number(timeoutMs) / 5);
process.stdin.on('data', () => {
  clearInterval(beat);
  watch.end();
});
