import { describe, expect, test } from 'vitest';
import { chartCheck, chartDirectory, helm } from '../support/helm.ts';
import { parseAllDocuments } from 'yaml';
import { nodePod, render, type Container, type KubeObject } from './render.ts';

/** A CronJob's pods and Jobs have names of 63 characters, 11 of which are not its own. */
const MAX_CRON_JOB_NAME = 52;

function objectsOf(release: string, ...arguments_: readonly string[]): readonly KubeObject[] {
  const place = [release, chartDirectory, '--namespace', 'a'];
  const { code, stderr, stdout } = helm('template', ...place, ...arguments_);
  if (code !== 0) throw new Error(`Cannot render ${release}: ${stderr}`);
  expect(chartCheck(stdout).code).toBe(0);
  return parseAllDocuments(stdout)
    .map((document) => document.toJS() as KubeObject | null)
    .filter((object) => object !== null);
}

function hooksOf(objects: readonly KubeObject[], kind: string): (string | undefined)[] {
  return objects
    .filter((each) => each.kind === kind)
    .map(({ metadata }) => metadata.annotations?.['helm.sh/hook']);
}

describe('names of a release', () => {
  test.each([
    ['of the greatest length', 'a'.repeat(53), []],
    ['with dots and a digit first', '1.salvor.b', []],
    ['given in full', 'x', ['--set', `fullnameOverride=${'b'.repeat(60)}`]],
  ])('%s are names that the API server takes', (_, release, values) => {
    const serviceMonitor = ['--set', 'serviceMonitor.enabled=true'];
    for (const { kind, metadata } of objectsOf(release, ...values, ...serviceMonitor)) {
      const { name } = metadata;
      const most = kind === 'CronJob' ? MAX_CRON_JOB_NAME : 63;
      expect(name.length, `${kind} ${name}`).toBeLessThanOrEqual(most);
      // Services are the strictest: RFC 1035.
      expect(name, kind).toMatch(/^[a-z]([-a-z0-9]*[a-z0-9])?$/);
    }
  });
});

describe('what pods are admitted by', () => {
  test('is there again for the pods that undo everything', () => {
    const objects = objectsOf(
      'salvor',
      ...['--set', 'priorityClass.create=true', '--set', 'priorityClassName=mirror'],
      ...['--set', 'resourceQuota.enabled=true'],
    );
    expect(hooksOf(objects, 'PriorityClass')).toEqual([undefined, 'post-delete']);
    expect(hooksOf(objects, 'ResourceQuota')).toEqual([undefined, 'post-delete']);
    const hooks = objects.filter((each) => each.metadata.annotations?.['helm.sh/hook']);
    const weight = ({ kind }: KubeObject): number =>
      Number(
        hooks.find((each) => each.kind === kind)?.metadata.annotations?.['helm.sh/hook-weight'],
      );
    const daemonSet = hooks.find(({ kind }) => kind === 'DaemonSet')!;
    expect(daemonSet['spec'].template.spec.priorityClassName).toBe('mirror');
    for (const each of hooks.filter(({ kind }) => /^(PriorityClass|ResourceQuota)$/.test(kind))) {
      expect(weight(each)).toBeLessThan(weight(daemonSet));
    }
  });

  test('is left alone where nothing is undone', () => {
    const objects = objectsOf(
      'salvor',
      ...['--set', 'resourceQuota.enabled=true', '--set', 'uninstall.enabled=false'],
    );
    expect(hooksOf(objects, 'ResourceQuota')).toEqual([undefined]);
  });
});

describe('an admin port on another loopback address', () => {
  test.each([
    ['[::1]:7481', '::1'],
    ['127.0.0.2:7481', '127.0.0.2'],
    ['0.0.0.0:7481', '127.0.0.1'],
    ['[::]:7481', '127.0.0.1'],
  ])('%s is asked at %s', (admin, host) => {
    const { container } = nodePod(render('minimal', `--set=config.registry.admin=${admin}`));
    const { livenessProbe } = container('registry') as Container & {
      livenessProbe: { httpGet: { host: string; port: number } };
    };
    expect(livenessProbe.httpGet).toMatchObject({ host, port: 7481 });
  });
});
