import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { describe, expect, test } from 'vitest';
import { LastProof } from '../../../src/agent/last-proof.ts';
import type { ProofSummary } from '../../../src/rpc/proof-summary.ts';
import { silentLogger } from '../../../src/telemetry/logger.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { withScope } from '../../support/test-scope.ts';

const clock = new FakeClock();
const proof: ProofSummary = {
  endedAtMs: clock.now(),
  tookMs: 1500,
  isComplete: true,
  images: 12,
  servable: 9,
  differences: 1,
  bytes: 123_456,
};

async function samples(register: Registry): Promise<Record<string, number>> {
  const lines = (await register.metrics()).split('\n').filter((line) => /^salvor/.test(line));
  return Object.fromEntries(
    lines.map((line) => line.split(' ')).map(([name = '', value]) => [name, Number(value)]),
  );
}

function make(path?: string): { lastProof: LastProof; register: Registry; warnings: string[] } {
  const register = new Registry();
  const warnings: string[] = [];
  const log = {
    info: () => undefined,
    warn: (_fields: object, message: string) => void warnings.push(message),
  };
  const lastProof = new LastProof({ path }, { register, clock, log: { ...silentLogger, ...log } });
  return { lastProof, register, warnings };
}

describe('LastProof', () => {
  test('LastProof shows nothing before the first proof, and then its result and age', async () => {
    const { lastProof, register } = make();
    expect(await samples(register)).toEqual({});
    await lastProof.record(proof);
    clock.advance(90_000);
    expect(await samples(register)).toEqual({
      salvor_agent_proof_timestamp_seconds: proof.endedAtMs / 1000,
      salvor_agent_proof_age_seconds: 90,
      salvor_agent_proof_complete: 1,
      salvor_agent_proof_images: 12,
      salvor_agent_proof_servable_images: 9,
      salvor_agent_proof_differences: 1,
      salvor_agent_proof_read_bytes: 123_456,
    });
  });

  test('LastProof outlives its process, and the last proof counts', async () => {
    await withScope('last-proof', async ({ directory }) => {
      const path = join(directory, 'state', 'last-proof.json');
      const first = make(path);
      await first.lastProof.load();
      await first.lastProof.record(proof);
      await first.lastProof.record({ ...proof, isComplete: false, differences: 0 });

      const next = make(path);
      await next.lastProof.load();
      expect(await samples(next.register)).toMatchObject({
        salvor_agent_proof_complete: 0,
        salvor_agent_proof_differences: 0,
      });
      expect([...first.warnings, ...next.warnings]).toEqual([]);
    });
  });

  test.each(['', 'null', '{"images":1}', '{"endedAtMs":"today","isComplete":true}'])(
    'LastProof reports a file that says %j and goes on without',
    async (text) => {
      await withScope('last-proof', async ({ directory }) => {
        const path = join(directory, 'last-proof.json');
        await writeFile(path, text);
        const { lastProof, register, warnings } = make(path);
        await lastProof.load();
        expect([warnings, await samples(register)]).toEqual([
          ['cannot read what the last proof came to'],
          {},
        ]);
        await lastProof.record(proof);
        expect(JSON.parse(await readFile(path, 'utf8'))).toEqual(proof);
      });
    },
  );

  test('LastProof shows a result that it cannot write down', async () => {
    await withScope('last-proof', async ({ directory }) => {
      await writeFile(join(directory, 'file'), '');
      const { lastProof, register, warnings } = make(join(directory, 'file', 'last-proof.json'));
      await lastProof.record(proof);
      expect(warnings).toEqual(['cannot write what the proof came to']);
      expect(await samples(register)).toMatchObject({ salvor_agent_proof_images: 12 });
    });
  });
});
