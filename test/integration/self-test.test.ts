import { beforeAll, expect, test } from 'vitest';
import { selfTest } from '../../src/node/hosts/self-test.ts';
import { systemClock } from '../../src/telemetry/clock.ts';
import { DirectoryNode } from '../support/directory-node.ts';
import { expectNoLeaks } from '../support/no-leaks.ts';
import { get } from '../support/oci-client.ts';
import { freePort } from '../support/ports.ts';
import { suiteScope } from '../support/test-scope.ts';

expectNoLeaks();

const scope = suiteScope('self-test');

let node: DirectoryNode;

beforeAll(async () => {
  // Nobody answers for any registry, and the agent of the node has not begun yet.
  const url = `http://127.0.0.1:${await freePort()}`;
  ({ node } = await DirectoryNode.createGroup(scope(), ['node', 'other'], {
    upstreams: { 'docker.io': { url } },
    registry: { readyAfter: ['docker.io'], mirrors: [{ url }] },
  }));
  await node.startRegistry();
});

async function page(path: string): Promise<{ status: number; text: string }> {
  const { status, body } = await get(`http://127.0.0.1:${node.adminPort}${path}`);
  return { status, text: body.toString() };
}

async function expectPass(): Promise<void> {
  const signal = AbortSignal.timeout(30_000);
  const options = { mirrorUrl: node.url, waitMs: 0, signal };
  expect(await selfTest(options, { clock: systemClock })).toMatch(/^\d/);
}

test('a node that starts in an outage passes, and nobody is told of a pull that failed', async () => {
  expect((await page('/readyz')).status).toBe(503);
  await expectPass();
  const { text } = await page('/metrics');
  expect(text).toMatch(
    /^salvor_registry_requests_total\{.*decision="self_test",status="503".*\} 1$/m,
  );
  expect(text).not.toMatch(/decision="unavailable"/);
  expect((await page('/status')).text).not.toContain('.invalid');
});

test('so does one whose agent is there, and other nodes are not', async () => {
  await node.startAgent();
  await expectPass();
});
