import { ContainerdConnection } from '../agent/containerd/containerd-connection.ts';
import type { Config } from '../config/schema.ts';
import {
  checkNames,
  diagnose,
  diagnosisText,
  exitCodeOf,
  factsFor,
  type CheckName,
} from '../node/doctor/diagnosis.ts';
import { asOnNode } from '../node/doctor/host-root.ts';
import { gatherFacts } from './doctor-facts.ts';
import { configSeenFrom } from './doctor-place.ts';
import { mirrorUrlOf } from './mirror-url.ts';

const CALL_MS = 5000;

/** What `salvor doctor` takes beside the settings. */
export interface DoctorOptions {
  readonly json: boolean;
  readonly cluster: boolean;
  /** Checks by name; none: all. */
  readonly only: readonly string[];
  readonly canary?: string;
  readonly containerdConfig?: string;
  readonly containerdVersion?: string;
  readonly hostRoot: string;
  readonly mirrorUrl?: string;
}

/**
 * `salvor doctor`: looks for what keeps this node, or the nodes together, from surviving an outage.
 *
 * @returns the exit code: 0 nothing, 1 warnings, 2 errors, 3 not all could be checked
 */
export async function runDoctor(
  given: Config,
  options: DoctorOptions,
  context: { readonly signal: AbortSignal; readonly writeOut: (text: string) => void },
): Promise<number> {
  const names = namesOf(options.only);
  const { hostRoot } = options;
  const config = await configSeenFrom(given, hostRoot);
  const { socket, namespace } = config.agent.store.containerd;
  const connection = new ContainerdConnection({
    socketPath: socket,
    namespace,
    callTimeoutMs: CALL_MS,
  });
  try {
    const gathered = await gatherFacts(factsFor(names), {
      config,
      connection,
      nodeSocket: asOnNode(given.agent.store.containerd.socket, hostRoot),
      mirrorUrl: mirrorUrlOf(config.registry.listen, options.mirrorUrl),
      containerdConfig: options.containerdConfig,
      containerdVersion: options.containerdVersion,
      hostRoot,
      canary: options.canary,
      isCluster: options.cluster,
      signal: context.signal,
    });
    const diagnosis = diagnose(gathered, names);
    context.writeOut(
      options.json
        ? `${JSON.stringify({ node: config.node.name, ...diagnosis }, undefined, 2)}\n`
        : diagnosisText(diagnosis),
    );
    return exitCodeOf(diagnosis);
  } finally {
    connection.close();
  }
}

function namesOf(only: readonly string[]): readonly CheckName[] {
  const unknown = only.find((name) => !checkNames.includes(name as CheckName));
  if (unknown !== undefined) {
    throw new Error(`Cannot check ${unknown}: there are ${checkNames.join(', ')}`);
  }
  return only.length === 0 ? checkNames : (only as readonly CheckName[]);
}
