import { createAuthority } from '../../../src/rpc/certificates.ts';
import { DirectoryNode } from '../../support/directory-node.ts';
import { startFaultProxy } from '../../support/fault-proxy.ts';
import type { Exchange } from '../../support/http-tap.ts';
import { MemoryRegistry } from '../../support/memory-registry.ts';
import { get, type GetAnswer } from '../../support/oci-client.ts';
import { freePort } from '../../support/ports.ts';
import type { TestScope } from '../../support/test-scope.ts';
import { contentsOf, faultImage, manifestType, pushTo } from './fault-image.ts';
import type { CellResult } from './run-cell.ts';
import { checkedDigest, repository } from './scene.ts';

/** A registry that is well, but for single requests now and then. */
export const sporadicRow = {
  faultClass: 'sporadic',
  title: 'is well, and fails a single request now and then',
};

const registry = 'sporadic.test';
const requestCount = 1000;
const atATime = 8;
/** Every so many requests for content one fails, by turns in one of two ways. */
const faultEvery = 40;
const tag = 'latest';

/**
 * A tag was moved a moment ago; nodes still know what it named before. A thousand requests, single
 * ones of which the registry resets or answers with 503, must never get the older image.
 */
export async function runSporadic(scope: TestScope): Promise<CellResult> {
  const [older, newer] = [
    { ...faultImage('older', { layerBytes: 1024 }), tag },
    { ...faultImage('newer', { layerBytes: 1024 }), tag },
  ];
  const honest = await MemoryRegistry.start(scope);
  const proxy = await startFaultProxy(scope, { targetPort: honest.port });
  const name = 'solo';
  const agentAddress = `127.0.0.1:${await freePort()}`;
  const upstreams = { [registry]: { url: proxy.url } };
  const members = [{ name, address: agentAddress }];
  const options = { name, agentAddress, members, upstreams };
  const node = await DirectoryNode.create(scope, options, await createAuthority());
  await node.startAgent();
  await node.startRegistry();
  for (const { digest, bytes } of contentsOf(older)) await node.hold(digest, bytes);
  await node.observe(`${registry}/${repository}:${tag}`, {
    digest: checkedDigest(older.manifest.digest),
    mediaType: manifestType,
    sizeBytes: older.manifest.bytes.length,
    // A clock that is a little fast: what the registry says meanwhile does not replace it.
    observedAtMs: Date.now() + 30_000,
  });
  pushTo(honest, newer);

  let seen = 0;
  let faults = 0;
  const isDue = ({ headers, path }: Exchange): boolean => {
    // Second attempts come on a connection that is closed after them: those succeed.
    if (!path.includes('/manifests/') || headers['connection'] === 'close') return false;
    seen += 1;
    if (seen % faultEvery !== 0) return false;
    faults += 1;
    // The next fault is of the other kind; this one has been chosen already.
    void proxy.setMode(faults % 2 === 0 ? resets : refuses);
    return true;
  };
  const resets = { kind: 'reset', match: isDue } as const;
  const refuses = { kind: 'answer', status: 503, match: isDue } as const;
  await proxy.setMode(resets);
  const url = `${node.url}/v2/${repository}/manifests/${tag}?ns=${registry}`;
  const answers: GetAnswer[] = [];
  let asked = 0;
  const client = async (): Promise<void> => {
    while (asked < requestCount) {
      // With credentials of its own a request shares no other's answer.
      asked += 1;
      const headers = { authorization: `Basic ${asked}`, accept: '*/*' };
      answers.push(await get(url, { headers }));
    }
  };
  await Promise.all(Array.from({ length: atATime }, client));

  const fromMemory = node.requests().filter(({ decision }) => decision === 'offline_tag').length;
  const old = answers.filter(({ body }) => body.equals(older.manifest.bytes)).length;
  const failed = answers.filter(({ status }) => status !== 200).length;
  const isRight = fromMemory === 0 && old === 0 && failed === 0;
  const hasFailed = faults >= requestCount / faultEvery - 1;
  return {
    name: `fault.${sporadicRow.faultClass}.tag.warm.${requestCount}`,
    value: fromMemory,
    unit: 'answers from memory',
    baseline: null,
    ratio: null,
    n: answers.length,
    must: '<=0',
    ok: isRight && hasFailed,
    servable: true,
    outcomes: { content: answers.length - failed - old, wrong: old, unavailable: failed },
    totalMs: 0,
    note: `${faults} requests were failed`,
  };
}
