import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Patience } from '../../../../src/registry/patience.ts';
import { HolderSearch } from '../../../../src/registry/sources/holder-search.ts';
import { PatientLookup } from '../../../../src/registry/sources/patient-lookup.ts';
import type { LocatedHolder, LocateSummary } from '../../../../src/rpc/agent-client.ts';
import { AgentError } from '../../../../src/rpc/agent-error.ts';
import type { SecondLook } from '../../../../src/rpc/locate-messages.ts';
import { silentLogger } from '../../../../src/telemetry/logger.ts';

const BUDGET_MS = 2000;

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

const holder = (index: number): LocatedHolder => ({
  node: `n${index}`,
  address: `n${index}.test:1`,
  sizeBytes: 0,
  verified: false,
  busy: false,
  tags: [],
  registrySeen: true,
  far: false,
});

/** What the own agent says to a look, and to a second one: as an error, it gives no answer. */
interface Says {
  readonly holders: readonly LocatedHolder[];
  readonly summary: LocateSummary;
}

function lookup(says: { readonly first: Says; readonly second: Says | AgentError }): PatientLookup {
  const { signal } = new AbortController();
  const search = (again?: SecondLook): HolderSearch =>
    new HolderSearch(
      { name: 'registry.test/a:1' },
      again === undefined ? { signal, timeoutMs: 1000 } : { signal, again },
      {
        agent: {
          connect: async () => true,
          locate: async function* () {
            const said = again === undefined ? says.first : says.second;
            if (said instanceof AgentError) throw said;
            for (const one of said.holders) yield { holder: one };
            yield { summary: said.summary };
          },
        },
        log: silentLogger,
      },
    );
  const trace = { begin: () => () => undefined, elapsedMs: () => 0 };
  const patience = new Patience({ budgetMs: BUDGET_MS }, { trace });
  patience.grant();
  return new PatientLookup({ signal }, { first: search(), second: { join: search }, patience });
}

describe('PatientLookup', () => {
  it('PatientLookup does not take silent nodes for nodes that said no, when nobody could ask them again', async () => {
    const first = { holders: [], summary: { asked: 3, failed: 2, silent: ['n1', 'n2'] } };
    const one = lookup({ first, second: new AgentError('unavailable', 'it restarts') });
    const found = one.next(() => true);
    await vi.advanceTimersByTimeAsync(BUDGET_MS);
    expect(await found).toBeUndefined();
    expect(one.summary).toEqual(first.summary);
  });

  it('PatientLookup asks whether it is enough once for what is new, not for each of many nodes', async () => {
    const many = Array.from({ length: 1000 }, (_, index) => holder(index));
    const one = lookup({
      first: { holders: many, summary: { asked: 1001, failed: 1, silent: ['late'] } },
      second: { holders: [holder(1000)], summary: { asked: 1, failed: 0 } },
    });
    let asked = 0;
    const all = one.all((holders) => {
      asked += 1;
      return holders.length > many.length;
    });
    await vi.advanceTimersByTimeAsync(BUDGET_MS);
    expect(await all).toHaveLength(many.length + 1);
    expect(asked).toBeLessThan(10);
  });
});
