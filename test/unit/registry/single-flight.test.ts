import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { SingleFlight } from '../../../src/registry/single-flight.ts';

const live = (): AbortSignal => new AbortController().signal;

/** Work that a test ends by hand. */
function work<T>() {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const signals: AbortSignal[] = [];
  const run = (signal: AbortSignal): Promise<T> => {
    signals.push(signal);
    return promise;
  };
  return { run, resolve, reject, signals };
}

/** Flights that board for 50 ms at most, with turns and time in the hands of the test. */
function boarding() {
  let nowMs = 0;
  let ends: (() => void)[] = [];
  const turn = (): Promise<void> => new Promise((resolve) => ends.push(resolve));
  const flights = new SingleFlight<number>({ maxBoardingMs: 50 }, { turn, now: () => nowMs });
  const next = async (): Promise<void> => {
    const ending = ends;
    ends = [];
    for (const end of ending) end();
    await setImmediate();
  };
  return { flights, turns: { next }, pass: (ms: number) => (nowMs += ms) };
}

describe('SingleFlight', () => {
  it('SingleFlight does the work once for all who ask the same meanwhile', async () => {
    const flights = new SingleFlight<number>();
    const job = work<number>();
    const passengers = Array.from({ length: 5 }, () => flights.run('a', live(), job.run));
    expect(job.signals.length).toBe(1);
    job.resolve(7);
    expect(await Promise.all(passengers)).toEqual([7, 7, 7, 7, 7]);
    expect(job.signals[0]!.aborted).toBe(false);
  });

  it('SingleFlight works anew for another key, and after the answer', async () => {
    const flights = new SingleFlight<number>();
    const job = work<number>();
    const a = flights.run('a', live(), job.run);
    const b = flights.run('b', live(), job.run);
    expect(job.signals.length).toBe(2);
    job.resolve(1);
    await Promise.all([a, b]);
    await flights.run('a', live(), job.run);
    expect(job.signals.length).toBe(3);
  });

  it('SingleFlight gives everybody the failure, and works anew after it', async () => {
    const flights = new SingleFlight<number>();
    const job = work<number>();
    const outcomes = Promise.allSettled([
      flights.run('a', live(), job.run),
      flights.run('a', live(), job.run),
    ]);
    job.reject(new Error('refused'));
    expect((await outcomes).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    const again = work<number>();
    const next = flights.run('a', live(), again.run);
    again.resolve(2);
    expect(await next).toBe(2);
  });

  it('SingleFlight lets one leave without harm to the others', async () => {
    const flights = new SingleFlight<number>();
    const job = work<number>();
    const leaver = new AbortController();
    const left = flights.run('a', leaver.signal, job.run);
    const stays = flights.run('a', live(), job.run);
    leaver.abort(new Error('client gone'));
    await expect(left).rejects.toThrow('client gone');
    expect(job.signals[0]!.aborted).toBe(false);
    job.resolve(3);
    expect(await stays).toBe(3);
  });

  it('SingleFlight aborts the work when the last passenger leaves', async () => {
    const flights = new SingleFlight<number>();
    const job = work<number>();
    const leavers = [new AbortController(), new AbortController()];
    const left = Promise.allSettled(leavers.map(({ signal }) => flights.run('a', signal, job.run)));
    leavers[0]!.abort();
    expect(job.signals[0]!.aborted).toBe(false);
    leavers[1]!.abort();
    await left;
    expect(job.signals[0]!.aborted).toBe(true);
    // Who comes then does not join work that was told to stop.
    const fresh = work<number>();
    const next = flights.run('a', live(), fresh.run);
    job.reject(new Error('aborted'));
    fresh.resolve(4);
    expect(await next).toBe(4);
  });

  it('SingleFlight does nothing for a request that has gone already', async () => {
    const flights = new SingleFlight<number>();
    const job = work<number>();
    const gone = AbortSignal.abort(new Error('gone'));
    await expect(flights.run('a', gone, job.run)).rejects.toThrow('gone');
    expect(job.signals).toEqual([]);
  });

  it('SingleFlight waits for a crowd while each turn of the event loop brings more of it', async () => {
    const { turns, flights } = boarding();
    const job = work<number>();
    const passengers = [flights.run('a', live(), job.run)];
    for (let turn = 0; turn < 3; turn += 1) {
      passengers.push(flights.run('a', live(), job.run), flights.run('a', live(), job.run));
      await turns.next();
      expect(job.signals).toEqual([]);
    }
    await turns.next();
    expect(job.signals.length).toBe(1);
    passengers.push(flights.run('a', live(), job.run));
    job.resolve(5);
    expect(await Promise.all(passengers)).toEqual([5, 5, 5, 5, 5, 5, 5, 5]);
    expect(job.signals.length).toBe(1);
  });

  it('SingleFlight keeps a lone request waiting for one turn, a crowd for its time', async () => {
    const { turns, flights, pass } = boarding();
    const alone = work<number>();
    const lone = flights.run('lone', live(), alone.run);
    await turns.next();
    expect(alone.signals.length).toBe(1);
    const job = work<number>();
    const passengers = [flights.run('a', live(), job.run), flights.run('a', live(), job.run)];
    pass(49);
    await turns.next();
    expect(job.signals).toEqual([]);
    passengers.push(flights.run('a', live(), job.run));
    pass(1);
    await turns.next();
    expect(job.signals.length).toBe(1);
    alone.resolve(1);
    job.resolve(2);
    expect(await Promise.all([lone, ...passengers])).toEqual([1, 2, 2, 2]);
  });

  it('SingleFlight begins nothing for a crowd that has gone before it was complete', async () => {
    const { turns, flights } = boarding();
    const job = work<number>();
    const leaver = new AbortController();
    const left = flights.run('a', leaver.signal, job.run);
    leaver.abort(new Error('client gone'));
    await expect(left).rejects.toThrow('client gone');
    const fresh = work<number>();
    const next = flights.run('a', live(), fresh.run);
    await turns.next();
    expect([job.signals.length, fresh.signals.length]).toEqual([0, 1]);
    fresh.resolve(6);
    expect(await next).toBe(6);
  });
});
