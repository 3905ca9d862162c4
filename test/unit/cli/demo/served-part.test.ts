import { describe, expect, test } from 'vitest';
import { childEnvironment } from '../../../../src/cli/demo/child.ts';
import { originsOf, parseServedPart } from '../../../../src/cli/demo/served-part.ts';
import { renderSummary } from '../../../../src/cli/demo/summary.ts';

const digest = `sha256:${'a'.repeat(64)}`;

function line(fields: object): string {
  return JSON.stringify({
    msg: 'request',
    method: 'GET',
    status: 200,
    source: 'upstream',
    bytes: 10,
    tried: [],
    ...fields,
  });
}

describe('parseServedPart', () => {
  test('tells tags, manifests and blobs apart', () => {
    const parse = (fields: object): unknown => parseServedPart(line(fields));

    expect(parse({ method: 'HEAD', url: '/v2/app/manifests/v1?ns=x:1' })).toMatchObject({
      what: 'tag',
      digest: '',
    });
    expect(parse({ url: `/v2/app/manifests/${digest}?ns=x` })).toMatchObject({
      what: 'manifest',
      digest,
    });
    expect(parse({ url: `/v2/app/blobs/${digest}` })).toMatchObject({ what: 'blob', digest });
    expect(parse({ url: `/v2/app/blobs/${encodeURIComponent(digest)}` })).toMatchObject({ digest });
  });

  test('names the sources that failed, not those that were overtaken', () => {
    const refused = { source: 'upstream', outcome: 'refused', ms: 1 };
    const tried = [refused, { source: 'upstream', outcome: 'overtaken', ms: 1 }];
    const url = `/v2/app/blobs/${digest}`;
    const ok = { source: 'node/a', outcome: 'ok', ms: 2 };

    expect(parseServedPart(line({ url, tried: [...tried, ok] }))?.failed).toEqual([refused]);
  });

  test.each([
    ['a question without bytes', line({ method: 'HEAD', url: `/v2/app/manifests/${digest}` })],
    ['a question for the version of the API', line({ url: '/v2/' })],
    ['another line', JSON.stringify({ msg: 'ready' })],
    ['no JSON', 'Error: Cannot listen'],
  ])('passes over %s', (_name, text) => {
    expect(parseServedPart(text)).toBeUndefined();
  });
});

describe('renderSummary', () => {
  const parts = ['upstream', 'node/a', 'node/b', 'upstream,node/a', 'memory'].map((source) => ({
    what: 'blob' as const,
    digest,
    status: 200,
    sizeBytes: 1_000_000,
    source,
    failed: [],
  }));

  test('adds up who served how much', () => {
    expect(originsOf(parts)).toEqual({
      upstreamBytes: 1_000_000,
      nodeBytes: 2_000_000,
      joinedBytes: 1_000_000,
    });
  });

  test('lines up one row a pull', () => {
    const common = { situation: 'dead', seconds: 1.26 };
    const rows = renderSummary([
      { ...common, pull: 'without Salvor', result: 'fails', parts: undefined },
      { ...common, pull: 'node b by tag', result: 'succeeds', parts },
    ]);

    expect(rows).toEqual([
      'the registry  pull            result    from it  from nodes  both in one blob  seconds',
      '-'.repeat(86),
      'dead          without Salvor  fails           -           -                 -      1.3',
      'dead          node b by tag   succeeds   1.0 MB      2.0 MB            1.0 MB      1.3',
    ]);
  });
});

describe('childEnvironment', () => {
  const env = { PATH: '/bin', SALVOR_NODE_NAME: 'x', HTTPS_PROXY: 'http://p', no_proxy: 'y' };

  test('keeps settings and proxies of this process from its children', () => {
    expect(childEnvironment(env, { proxy: false })).toEqual({ PATH: '/bin' });
  });

  test('leaves the proxy to whoever has to reach other machines', () => {
    expect(childEnvironment(env, { proxy: true })).toEqual({
      PATH: '/bin',
      HTTPS_PROXY: 'http://p',
      no_proxy: 'y',
      NODE_USE_ENV_PROXY: '1',
    });
  });
});
