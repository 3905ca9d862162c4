import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { configJsonSchema, type JsonSchema } from './config-json-schema.ts';

// The values of the chart beside `config`. Defaults come from values.yaml, so that there is one
// place for them; what may be written is said here, so that there is one place for that, too.

const chart = new URL('../charts/salvor/', import.meta.url);

function object(properties: Record<string, JsonSchema>): JsonSchema {
  return { type: 'object', properties, additionalProperties: false };
}

function choice(...values: string[]): JsonSchema {
  return { enum: values };
}

const text: JsonSchema = { type: 'string' };
const flag: JsonSchema = { type: 'boolean' };
const count: JsonSchema = { type: 'integer', minimum: 0 };
/** Never a directory that others use, too: it is emptied in the end. */
const ownPath: JsonSchema = { type: 'string', pattern: '^/.*salvor[^/]*$' };
const pathOrEmpty: JsonSchema = { type: 'string', pattern: '^(/.*)?$' };
/** A name that the API server takes for an object. */
const name: JsonSchema = {
  type: 'string',
  pattern: '^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$',
  maxLength: 253,
};
const namespace: JsonSchema = {
  type: 'string',
  pattern: '^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$',
  maxLength: 63,
};
/** A time as Go writes it, such as 30s or 1h30m. */
const duration: JsonSchema = { type: 'string', pattern: '^([0-9]+(ms|s|m|h))+$' };
/** A time as Salvor's own settings have it. */
const time: JsonSchema = { type: 'string', pattern: '^([0-9]+(ms|s|min|m|h|d))+$' };
/** An IP address or a name without a port, and no name of a role, which would give its holder that role. */
const address: JsonSchema = {
  type: 'string',
  pattern: '^([0-9A-Fa-f]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*|([*][.])?[A-Za-z0-9_.-]+)$',
  not: { pattern: '[.][Ss][Aa][Ll][Vv][Oo][Rr][.][Ii][Nn][Tt][Ee][Rr][Nn][Aa][Ll]$' },
};
const texts: JsonSchema = { type: 'array', items: text };
/** Parts of the Kubernetes API that are passed on as they are; the API server checks them. */
const passed: JsonSchema = { type: 'object' };
const passedList: JsonSchema = { type: 'array', items: { type: 'object' } };
const textMap: JsonSchema = { type: 'object', additionalProperties: text };
const quantity: JsonSchema = {
  type: ['string', 'integer', 'number'],
  pattern: '^[0-9.]+(m|k|M|G|T|Ki|Mi|Gi|Ti)?$',
};
const quantityMap: JsonSchema = { type: 'object', additionalProperties: quantity };
const resources = object({ requests: quantityMap, limits: quantityMap, claims: passedList });
const probeTimes = {
  initialDelaySeconds: count,
  periodSeconds: { ...count, minimum: 1 },
  timeoutSeconds: { ...count, minimum: 1 },
  successThreshold: { ...count, minimum: 1 },
  failureThreshold: { ...count, minimum: 1 },
};
const probe = object(probeTimes);
const livenessProbe = object({
  ...probeTimes,
  terminationGracePeriodSeconds: { ...count, minimum: 1 },
});
const countOrPercent: JsonSchema = { type: ['integer', 'string'], pattern: '^[0-9]+%$' };

const container = {
  resources,
  securityContext: passed,
  extraEnv: passedList,
  extraEnvFrom: passedList,
  extraVolumeMounts: passedList,
};

const monitor = object({
  enabled: flag,
  interval: duration,
  scrapeTimeout: duration,
  labels: textMap,
  relabelings: passedList,
  metricRelabelings: passedList,
});

const tls = object({
  issue: object({
    enabled: flag,
    renewal: object({ enabled: flag, schedule: { ...text, minLength: 1 } }),
    extraArgs: texts,
    resources,
  }),
  certManager: object({
    enabled: flag,
    issuerRef: object({ name, kind: text, group: text }),
    duration,
    renewBefore: duration,
  }),
  existingSecrets: object({ agent: name, registry: name }),
});

const grafanaDashboard = object({
  enabled: flag,
  mode: choice('Sidecar', 'GrafanaOperator'),
  labels: textMap,
  annotations: textMap,
  grafanaOperator: object({
    allowCrossNamespaceImport: flag,
    folder: text,
    resyncPeriod: duration,
    matchLabels: textMap,
  }),
});

const verticalPodAutoscaler = object({
  enabled: flag,
  updateMode: choice('Off', 'Initial', 'Recreate', 'InPlaceOrRecreate', 'Auto'),
  recommenders: passedList,
  controlledResources: texts,
  controlledValues: choice('RequestsOnly', 'RequestsAndLimits'),
  minAllowed: quantityMap,
  maxAllowed: quantityMap,
});

const distributions = (): string[] =>
  Object.keys(parse(read('files/distributions.yaml')) as Record<string, unknown>);

function properties(alerts: readonly string[]): Record<string, JsonSchema> {
  return {
    image: object({
      repository: { ...text, pattern: '^[a-z0-9][a-z0-9._:/-]*[a-z0-9]$' },
      tag: { ...text, pattern: String.raw`^([\w][\w.-]{0,127})?$` },
      digest: { ...text, pattern: '^(sha256:[a-f0-9]{64})?$' },
      pullPolicy: choice('IfNotPresent', 'Always', 'Never'),
    }),
    imagePullSecrets: {
      type: 'array',
      items: { ...object({ name: { ...name, minLength: 1 } }), required: ['name'] },
    },
    nameOverride: namespace,
    fullnameOverride: namespace,
    namespaceOverride: namespace,
    commonLabels: textMap,
    config: configJsonSchema(),
    distribution: choice(...distributions()),
    containerd: object({
      socket: pathOrEmpty,
      namespace: { ...text, minLength: 1, maxLength: 76 },
      contentDirectory: pathOrEmpty,
      certsDirectory: pathOrEmpty,
    }),
    hosts: object({
      enabled: flag,
      waitTimeout: { type: 'string', pattern: '^[0-9]+(ms|s|m)$' },
      sharePercent: { type: 'integer', minimum: 0, maximum: 100 },
      extraArgs: texts,
      extraVolumeMounts: passedList,
      resources,
      securityContext: passed,
    }),
    registry: object(container),
    agent: object({ ...container, stateDirectory: ownPath }),
    tls,
    bootstrap: object({
      enabled: flag,
      port: { type: 'integer', minimum: 1, maximum: 65_535 },
      repositories: texts,
      addresses: { type: 'array', items: address },
      secretName: name,
    }),
    rollout: object({ pauseDuringOutage: flag }),
    updateStrategy: object({
      type: choice('RollingUpdate', 'OnDelete'),
      // One pod's ports are the node's: a second one beside it could not start.
      rollingUpdate: object({ maxUnavailable: countOrPercent, maxSurge: { enum: [0, '0%'] } }),
    }),
    minReadySeconds: count,
    terminationGracePeriodSeconds: count,
    revisionHistoryLimit: count,
    uninstall: object({ enabled: flag, timeout: time, removeState: flag, resources }),
    serviceAccount: object({ create: flag, name, annotations: textMap }),
    rbac: object({ create: flag }),
    nodeSelector: textMap,
    tolerations: passedList,
    affinity: passed,
    priorityClassName: name,
    priorityClass: object({
      create: flag,
      value: { type: 'integer', minimum: -2_147_483_648, maximum: 1_000_000_000 },
      description: text,
    }),
    resourceQuota: object({ enabled: flag, pods: { ...count, minimum: 1 } }),
    dnsPolicy: choice('Default', 'ClusterFirst', 'ClusterFirstWithHostNet', 'None'),
    dnsConfig: passed,
    podSecurityContext: passed,
    podAnnotations: textMap,
    podLabels: textMap,
    daemonSetAnnotations: textMap,
    extraVolumes: passedList,
    extraInitContainers: passedList,
    extraContainers: passedList,
    livenessProbe,
    readinessProbe: probe,
    startupProbe: probe,
    metrics: object({ listen: choice('auto', 'loopback', 'node') }),
    podMonitor: monitor,
    serviceMonitor: monitor,
    prometheusRule: object({
      enabled: flag,
      labels: textMap,
      runbookUrl: { ...text, pattern: '^https?://' },
      alertLabels: textMap,
      disabled: { type: 'array', items: { enum: alerts } },
      certificateExpiryDays: { ...count, minimum: 1 },
    }),
    grafanaDashboard,
    verticalPodAutoscaler,
    // What Helm hands to every chart that is another's part.
    global: passed,
  };
}

/**
 * The schema of the chart's values: those of Salvor's own configuration from src/config/schema.ts,
 * the others from this file, with the defaults of values.yaml.
 */
export function chartValuesSchema(): JsonSchema {
  const defaults = parse(read('values.yaml')) as Record<string, unknown>;
  const schema = object(properties(alertNames()));
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'Values of the Salvor chart',
    $comment: 'Generated by "npm run docs"; changes made here are lost.',
    ...withDefaults(schema, defaults),
  };
}

/** Every alert that the chart knows, in the order of its template. */
export function alertNames(): string[] {
  const names = read('templates/prometheusrule.yaml').matchAll(/"name" "(Salvor\w+)"/g);
  return [...names].map((match) => match[1]!);
}

function withDefaults(schema: JsonSchema, value: unknown): JsonSchema {
  const known = schema['properties'] as Record<string, JsonSchema> | undefined;
  if (known === undefined) return value === undefined ? schema : { ...schema, default: value };
  if (typeof value !== 'object' || value === null) return schema;
  const given = value as Record<string, unknown>;
  const entries = Object.entries(known).map(([key, part]) => [key, withDefaults(part, given[key])]);
  return { ...schema, properties: Object.fromEntries(entries) as Record<string, JsonSchema> };
}

function read(file: string): string {
  return readFileSync(new URL(file, chart), 'utf8');
}
