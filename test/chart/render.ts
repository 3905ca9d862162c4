import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse, parseAllDocuments } from 'yaml';
import { chartDirectory, helm } from '../support/helm.ts';

/** An object of the Kubernetes API, as far as tests look at all kinds alike. */
export interface KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly [field: string]: any;
}

/** What a chart comes to with some values. */
export interface Rendered {
  /** All documents, hooks included. */
  readonly yaml: string;
  readonly objects: readonly KubeObject[];
  /** The one object of a kind with a name. */
  readonly one: (kind: string, name: string) => KubeObject;
}

const valuesDirectory = join(import.meta.dirname, 'values');

/** The value sets by name. */
export const valueSets: readonly string[] = readdirSync(valuesDirectory).map((file) =>
  file.replace(/\.yaml$/, ''),
);

/** The file of a value set. */
export function valuesFile(name: string): string {
  return join(valuesDirectory, `${name}.yaml`);
}

/** The values of a set. */
export function valuesOf(name: string): Readonly<Record<string, unknown>> {
  return parse(readFileSync(valuesFile(name), 'utf8')) as Record<string, unknown>;
}

const rendered = new Map<string, Rendered>();

/**
 * Renders the chart as release "salvor" in the namespace "salvor-system", once for each set.
 *
 * @param set a value set; further arguments are Helm's own, such as --set
 * @throws with what Helm said, when it fails
 */
export function render(set: string, ...arguments_: readonly string[]): Rendered {
  const key = [set, ...arguments_].join(' ');
  const known = rendered.get(key) ?? renderAnew(set, arguments_);
  rendered.set(key, known);
  return known;
}

function renderAnew(set: string, arguments_: readonly string[]): Rendered {
  const place = ['salvor', chartDirectory, '--namespace', 'salvor-system'];
  const values = ['--values', valuesFile(set), ...arguments_];
  const { code, stderr, stdout } = helm('template', ...place, ...values);
  if (code !== 0) throw new Error(`Cannot render ${set}: ${stderr}`);
  const objects = parseAllDocuments(stdout)
    .map((document) => document.toJS() as KubeObject | null)
    .filter((object) => object !== null);
  return {
    yaml: stdout,
    objects,
    one: (kind, name) => {
      const found = objects.filter((each) => each.kind === kind && each.metadata.name === name);
      if (found.length !== 1) throw new Error(`${set} has ${found.length} ${kind} ${name}`);
      return found[0]!;
    },
  };
}

/** A container of a pod, init containers included. */
export interface Container {
  readonly name: string;
  readonly args: readonly string[];
  readonly env?: readonly { name: string; value?: string }[];
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly volumeMounts?: readonly { name: string; mountPath: string; readOnly?: boolean }[];
  readonly [field: string]: any;
}

/** The pods' spec of the node DaemonSet, and its containers by name. */
export function nodePod(of: Rendered, name = 'salvor') {
  const daemonSet = of.one('DaemonSet', name);
  const spec = daemonSet['spec'].template.spec as KubeObject;
  const containers = [...spec['initContainers'], ...spec['containers']] as Container[];
  const container = (wanted: string): Container => {
    const found = containers.find((each) => each.name === wanted);
    if (found === undefined) throw new Error(`No container ${wanted}`);
    return found;
  };
  const volume = (wanted: string): KubeObject | undefined =>
    (spec['volumes'] as KubeObject[]).find((each) => each['name'] === wanted);
  return { daemonSet, spec, containers, container, volume };
}
