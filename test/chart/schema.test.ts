import { describe, expect, test } from 'vitest';
import { chartDirectory, helm } from '../support/helm.ts';

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
    [
      'bootstrap.addresses=["10.0.0.1:7492"]',
      /'\/bootstrap\/addresses\/0'.*does not match pattern/s,
    ],
    ['bootstrap.addresses=["Registry.Salvor.internal"]', /'\/bootstrap\/addresses\/0'.*not/s],
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
