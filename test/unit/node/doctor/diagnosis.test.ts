import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

import { catalogue, finding } from '../../../../src/node/doctor/finding.ts';
import {
  checkNames,
  diagnose,
  diagnosisText,
  exitCodeOf,
  factsFor,
} from '../../../../src/node/doctor/diagnosis.ts';
import { repositoryRoot } from '../../../support/tools.ts';
import { settings } from './settings.ts';

const page = readFileSync(join(repositoryRoot, 'docs', 'doctor.md'), 'utf8');

describe('diagnose', () => {
  test('diagnose names a check whose facts are not known, and passes over what there is none of', () => {
    const diagnosis = diagnose(
      {
        agent: { value: { failure: 'no connection' } },
        settings: { value: settings() },
        canary: { failure: 'registry.admin is empty' },
        ownImage: 'none',
      },
      ['agent', 'canary', 'image', 'policies', 'disk'],
    );
    expect(diagnosis.findings.map(({ id }) => id)).toEqual(['agent-unreachable']);
    expect(diagnosis.unchecked).toEqual([
      { check: 'canary', reason: 'registry.admin is empty' },
      { check: 'disk', reason: 'disks was not gathered' },
    ]);
  });

  test('factsFor asks for each fact once', () => {
    const names = factsFor(checkNames);
    expect(new Set(names).size).toBe(names.length);
    expect(factsFor(['clock', 'reach'])).toEqual(['reach', 'settings']);
  });

  test('exitCodeOf tells errors from what could not be checked, and that from warnings', () => {
    const error = finding('two-roots', '', '');
    const warning = finding('policies-off', '', '');
    const info = finding('hosts-passed-over', '', '');
    const open = [{ check: 'disk', reason: '' }] as const;
    expect(exitCodeOf({ findings: [], unchecked: [] })).toBe(0);
    expect(exitCodeOf({ findings: [info], unchecked: [] })).toBe(0);
    expect(exitCodeOf({ findings: [warning], unchecked: [] })).toBe(1);
    expect(exitCodeOf({ findings: [warning], unchecked: open })).toBe(3);
    expect(exitCodeOf({ findings: [warning, error], unchecked: open })).toBe(2);
  });

  test('diagnosisText shows the worst first, each with a fix', () => {
    const findings = [finding('policies-off', 'b', 'y'), finding('two-roots', 'a', 'x')];
    const text = diagnosisText({ findings, unchecked: [{ check: 'disk', reason: 'gone' }] });
    expect(text.split('\n').filter((line) => !line.startsWith('  why'))).toEqual([
      'error: a [two-roots]',
      '  fix: x',
      'warning: b [policies-off]',
      '  fix: y',
      'not checked: disk: gone',
      '',
    ]);
    expect(diagnosisText({ findings: [], unchecked: [] })).toBe('nothing found\n');
  });

  test('docs/doctor.md tells of every finding and every check, and of no other', () => {
    const told = [...page.matchAll(/^\| `([a-z-]+)` +\| (error|warning|info) /gm)];
    const known = Object.entries(catalogue).map(([id, [severity]]) => [id, severity]);
    expect(told.map(([, id, severity]) => [id, severity]).toSorted()).toEqual(known.toSorted());
    for (const name of checkNames) expect(page).toContain(`\`${name}\``);
  });
});
