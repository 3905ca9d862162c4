// A process in which many clients want the same thing at once: node herd.ts
// '{"target":{…},"path":"/v2/…","clients":500}'. All are connected before the first asks. Prints one JSON line
// at the end.
import { RawConnection, type RawTarget } from './raw-connection.ts';

/** What everybody wants. */
export interface HerdPlan {
  readonly target: RawTarget;
  /** With the query. */
  readonly path: string;
  readonly clients: number;
}

/** How it went; every answer was 200. */
export interface HerdReport {
  readonly answers: number;
  /** Of the client that waited longest. */
  readonly slowestMs: number;
}

// What listens takes a queue of 511; a storm of handshakes would measure that instead.
const connectAtOnce = 50;

async function connectAll({ target, clients }: HerdPlan): Promise<RawConnection[]> {
  const connections: RawConnection[] = [];
  while (connections.length < clients) {
    const count = Math.min(connectAtOnce, clients - connections.length);
    const opening = Array.from({ length: count }, () => RawConnection.open(target));
    connections.push(...(await Promise.all(opening)));
  }
  return connections;
}

if (import.meta.main) {
  const plan = JSON.parse(process.argv[2] ?? '{}') as HerdPlan;
  const connections = await connectAll(plan);
  const elapsedMs = await Promise.all(connections.map((connection) => connection.ask(plan.path)));
  for (const connection of connections) connection.close();
  const report: HerdReport = { answers: elapsedMs.length, slowestMs: Math.max(...elapsedMs) };
  console.log(JSON.stringify(report));
}
