import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { containerdVersion } from '../../support/containerd-version.ts';
import { suiteScope } from '../../support/test-scope.ts';
import { faultCases, type FaultCase } from './fault-case.ts';
import { FaultScene } from './fault-scene.ts';
import { writeResult, type CaseResult, type PullResult } from './support-result.ts';

const runsAll = process.env['SALVOR_TEST_ALL'] !== undefined;
// Enough for containerd's own 30 s until it gives up a connection, and for what comes after.
const patienceMs = runsAll ? 40_000 : 12_000;
const longestPullSeconds = 20;
const handful = new Set(['refused', 'silent', 'cut', 'too-many-requests', 'liar-beside-honest']);

/** Whether a pull through Salvor must succeed whatever happens to one without it. */
function isServable({ id, holders }: FaultCase): boolean {
  return id === 'healthy' || holders.includes('honest');
}

/**
 * Tests one containerd version: each fault met directly, through Salvor, and with Salvor dead.
 *
 * @param name of the version, such as "2.3"
 */
export function describeFaults(name: string): void {
  const version = containerdVersion(name);
  const cases = faultCases.filter(({ id }) => runsAll || handful.has(id));
  const scope = suiteScope(`faults-${name}`);
  const direct = new Map<string, Promise<PullResult>>();
  const killed = new Map<string, Promise<PullResult>>();
  const salvor = new Map<string, PullResult>();
  const results: CaseResult[] = [];
  let scene: FaultScene;

  beforeAll(async () => {
    scene = await FaultScene.start(scope(), { version, cases });
    for (const each of cases) await scene.breakIt(each);
    const begin = (each: FaultCase): void => {
      direct.set(each.id, observed(scene.pullDirectly(each, patienceMs)));
      killed.set(each.id, observed(scene.pullPastDeadSalvor(each, patienceMs)));
    };
    cases.filter(({ holdsUp }) => holdsUp === undefined).forEach(begin);
    await Promise.allSettled([...direct.values(), ...killed.values()]);
    // The rest does little but wait, so it waits together, and beside the pulls through Salvor.
    cases.filter(({ holdsUp }) => holdsUp === true).forEach(begin);
  }, 120_000);

  afterAll(async () => {
    await Promise.allSettled([...direct.values(), ...killed.values()]);
  }, 60_000);

  describe(`containerd ${name}`, () => {
    test.each(cases)('through Salvor: $title', async (each) => {
      const result = await scene.pullThroughSalvor(each, patienceMs);
      salvor.set(each.id, result);

      expect(result.outcome, result.reason).not.toBe('hangs');
      expect(result.seconds).toBeLessThan(longestPullSeconds);
      if (isServable(each)) expect(result.outcome, result.reason).toBe('succeeds');
    });

    test('containerd is the release that it is meant to be, and pulls as it is said to', async () => {
      const release = await scene.puller.containerd.runtimeVersion();
      expect(release).toContain(version.release ?? name);
      const transfers = scene.puller.containerd.program
        .lines()
        .some(({ text }) => text.includes('using transfer service'));
      expect(transfers).toBe(version.pullPath === 'transfer service');
    });

    test.each(cases)(
      'is never worse than without Salvor: $title',
      async ({ id, title }) => {
        const [without, past] = await Promise.all([direct.get(id)!, killed.get(id)!]);
        const through = salvor.get(id)!;
        results.push({ id, title, direct: without, salvor: through, killed: past });

        const reasons = `${past.reason}; ${without.reason}`;
        // How long it takes to fail may differ: 2.3 repeats some of the connections that time out.
        expect(past.outcome === 'succeeds', reasons).toBe(without.outcome === 'succeeds');
        if (without.outcome === 'succeeds') {
          expect(through.outcome, through.reason).toBe('succeeds');
        }
      },
      patienceMs + 20_000,
    );

    test.runIf(runsAll)('leaves its results for the support table', async () => {
      expect(results.map(({ id }) => id)).toEqual(cases.map(({ id }) => id));
      await writeResult({
        version: name,
        release: await scene.puller.containerd.runtimeVersion(),
        configVersion: version.configVersion,
        pullPath: version.pullPath,
        rangeBytes: version.rangeBytes ?? null,
        patienceSeconds: patienceMs / 1000,
        cases: results,
      });
    });
  });
}

/** A failure is somebody's to see later; until then it is no accident. */
function observed<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}
