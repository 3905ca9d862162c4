import { describe, expect, it } from 'vitest';
import type { Answer } from '../../../src/registry/answer.ts';
import type { PullRequest } from '../../../src/registry/pull-request.ts';
import { SourceError } from '../../../src/registry/sources/source.ts';
import { UpstreamFailure } from '../../../src/registry/upstream/upstream-failure.ts';
import { expectNoLeaks } from '../../support/no-leaks.ts';
import { waitFor } from '../../support/wait.ts';
import { FakeBody } from './fake-body.ts';
import {
  blobPath,
  connect,
  content,
  logged,
  manifestPath,
  start,
  streamed,
  whole,
} from './registry-server-scene.ts';

expectNoLeaks();

const outage = {
  sinceMs: Date.now(),
  cause: new UpstreamFailure('timeout', 'registry.test gave no answer in time'),
  savedRequests: 0,
};

const from = (source: string, answer = whole(content, 'peer')): Answer => ({
  ...answer,
  source: () => source,
});

/** An answer of a node after an attempt that ended like this at the upstream. */
const after =
  (outcome: string, answer = from('node/a')) =>
  async ({ trace }: PullRequest): Promise<Answer> => {
    trace.begin('upstream')(outcome);
    trace.begin('node/a')('ok');
    return answer;
  };

async function metricsOf(started: Awaited<ReturnType<typeof start>>): Promise<string[]> {
  const text = await started.register.metrics();
  return text
    .split('\n')
    .filter((line) => /^salvor_registry_(saved_requests|fallbacks)_total\{/.test(line));
}

describe('Savings', () => {
  it('Savings counts what a node answered because the upstream failed', async () => {
    const started = await start({ manifest: after('refused') });
    const client = await connect(started.port);
    client.get(`${manifestPath}?ns=registry.test`);
    expect((await client.answer()).status).toBe(200);
    await waitFor(() => logged.length > 0);
    expect(started.saved).toEqual(['registry.test']);
    expect(logged[0]?.fields).toMatchObject({ fallback: 'refused', source: 'node/a' });
    expect(started.decisions.find('')).toMatchObject([{ fallback: 'refused' }]);
    expect(await metricsOf(started)).toEqual([
      'salvor_registry_saved_requests_total{registry="other",kind="manifest"} 1',
      'salvor_registry_fallbacks_total{cause="refused"} 1',
    ]);
  });

  it('Savings counts answers of an outage in which the upstream was not asked', async () => {
    const manifest = async () => from('memory', whole(content, 'memory'));
    const started = await start({ outage, manifest });
    const client = await connect(started.port);
    client.get(manifestPath);
    await client.answer();
    await waitFor(() => logged.length > 0);
    expect(await metricsOf(started)).toContain(
      'salvor_registry_fallbacks_total{cause="timeout"} 1',
    );
    expect(started.saved.length).toBe(1);
  });

  it.each([
    { what: 'the upstream gave it', manifest: async () => from('upstream') },
    { what: 'nobody gave it', manifest: after('refused', { ...whole(content), status: 503 }) },
    { what: 'nothing was wrong upstream', manifest: async () => from('memory') },
  ])('Savings counts nothing where $what', async ({ manifest }) => {
    const started = await start({ manifest });
    const client = await connect(started.port);
    client.get(manifestPath);
    await client.answer();
    await waitFor(() => logged.length > 0);
    expect([started.saved, await metricsOf(started)]).toEqual([[], []]);
    expect(logged[0]?.fields).not.toHaveProperty('fallback');
  });

  it('Savings takes no request for saved that the upstream was merely slow to answer', async () => {
    const started = await start({ manifest: after('overtaken') });
    const client = await connect(started.port);
    client.get(manifestPath);
    await client.answer();
    await waitFor(() => logged.length > 0);
    expect(await metricsOf(started)).toEqual(['salvor_registry_fallbacks_total{cause="slow"} 1']);
    expect(started.saved).toEqual([]);
  });

  it('Savings takes no request for saved that got an error', async () => {
    const manifest = after('refused', { ...from('node/a'), status: 503 });
    const started = await start({ manifest });
    const client = await connect(started.port);
    client.get(manifestPath);
    expect((await client.answer()).status).toBe(503);
    await waitFor(() => logged.length > 0);
    expect(started.saved).toEqual([]);
  });

  it('Savings takes no request for saved whose body broke off in the end', async () => {
    const steps = [Buffer.from('abc'), new SourceError('cut', 'no source is left')];
    const body = new FakeBody({ sizeBytes: 6, steps });
    const started = await start({ blob: after('cut', from('upstream,node/a', streamed(body))) });
    const client = await connect(started.port);
    client.get(blobPath);
    await client.untilEnded();
    await waitFor(() => logged.length > 0);
    expect(await metricsOf(started)).toEqual(['salvor_registry_fallbacks_total{cause="cut"} 1']);
    expect(started.saved).toEqual([]);
  });
});
