import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'yaml';
import { describe, expect, test } from 'vitest';
import { renderChartFiles } from '../../scripts/chart-files.ts';
import { chartDirectory, helm } from '../support/helm.ts';

describe('generated files of the chart', () => {
  test('renderChartFiles gives what is committed', async () => {
    for (const { content, file } of await renderChartFiles()) {
      expect(await readFile(file, 'utf8'), `${file.pathname}: run "npm run docs"`).toBe(content);
    }
  });

  test('values.yaml gives every value of the schema', async () => {
    const content = (await renderChartFiles())[0]?.content ?? '';
    const values = parse(await readFile(join(chartDirectory, 'values.yaml'), 'utf8')) as unknown;
    const optional = [
      // Helm's own, containerd's by distribution, and what Kubernetes has defaults for.
      /^global$/,
      /^config\./,
      /^(hosts|registry|agent|uninstall|tls\.issue)\.resources\.(claims|limits|requests)/,
      /Probe\.(initialDelaySeconds|successThreshold)$/,
    ];
    const missing = missingKeys(JSON.parse(content) as Schema, values);
    expect(missing.filter((key) => !optional.some((pattern) => pattern.test(key)))).toEqual([]);
  });
});

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>;
}

function missingKeys(schema: Schema, value: unknown, prefix = ''): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([key, part]) => {
    const inner = (value as Record<string, unknown> | undefined)?.[key];
    return inner === undefined ? [prefix + key] : missingKeys(part, inner, `${prefix}${key}.`);
  });
}

/** What Helm says of values that the schema or a template refuses. */
function refusal(...settings: readonly string[]): string {
  const set = settings.flatMap((setting) => ['--set-json', setting]);
  const { code, stderr } = helm('template', 'salvor', chartDirectory, ...set);
  expect(code, `${settings.join(' ')} is accepted`).not.toBe(0);
  return stderr;
}

describe('values that are refused', () => {
  test.each([
    ['imagePullPolicy="Always"', /additional properties 'imagePullPolicy' not allowed/],
    ['config.registry.lisen="127.0.0.1:1"', /'\/config\/registry'.*'lisen' not allowed/s],
    ['config.registry.listen="127.0.0.1"', /'\/config\/registry\/listen'.*does not match pattern/s],
    ['config.registry.budgets.hedgeMs="fast"', /'\/config\/registry\/budgets\/hedgeMs'/],
    ['config.registry.budgets.hedgeMs=0', /'\/config\/registry\/budgets\/hedgeMs'.*minimum/s],
    ['config.registry.policies=[{"mode":"serve"}]', /missing property 'match'/],
    ['config.registry.policies=[{"match":"*","mode":"maybe"}]', /'serve', 'observe', 'bypass'/],
    ['config.registry.upstreams={"https://docker.io":{}}', /'\/config\/registry\/upstreams'/],
    ['config.log.level="loud"', /'info', 'debug', 'warn', 'error', 'silent'/],
    ['distribution="k4s"', /'generic', 'k3s'/],
    ['image.digest="sha256:beef"', /'\/image\/digest'.*does not match pattern/s],
    ['imagePullSecrets=["pull"]', /'\/imagePullSecrets\/0'.*got string, want object/s],
    ['updateStrategy.rollingUpdate.maxSurge=1', /'\/updateStrategy\/rollingUpdate\/maxSurge'/],
    ['agent.stateDirectory="salvor"', /'\/agent\/stateDirectory'.*does not match pattern/s],
    ['prometheusRule.disabled=["SalvorNoSuch"]', /'SalvorUpstreamOutage'/],
    ['registry.resources.limits.memory="1 GB"', /'\/registry\/resources\/limits\/memory'/],
    ['uninstall.timeout="soon"', /'\/uninstall\/timeout'.*does not match pattern/s],
    ['priorityClass.create=true', /priorityClassName must not begin with system-/],
    ['tls.certManager.enabled=true', /tls.certManager.issuerRef.name must be given/],
    ['tls.issue.enabled=false', /nodes need certificates/],
    ['tls.existingSecrets.agent="a"', /needs both agent and registry/],
    ['config.agent.admin=""', /config.agent.admin must not be empty/],
  ])('the chart refuses %s and says why', (setting, expected) => {
    expect(refusal(setting)).toMatch(expected);
  });

  test('the chart reports several mistakes at once', () => {
    const said = refusal('config.log.level="loud"', 'image.pullPolicy="Sometimes"');
    expect(said).toMatch(/config\/log\/level/);
    expect(said).toMatch(/image\/pullPolicy/);
  });
});
