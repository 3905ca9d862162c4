import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { expect, it } from 'vitest';
import {
  LocateRequestSchema,
  LocateResponseSchema,
} from '../../../src/rpc/gen/salvor/agent/v1/agent_pb.ts';
import { locateFromMessage, locateToMessage } from '../../../src/rpc/locate-messages.ts';

const key = { name: 'registry.test/a:1' };
/** What an agent's server takes. */
const MAX_REQUEST_BYTES = 64 * 1024;

it('locateToMessage asks everybody once unless it is told to look again', () => {
  expect(locateToMessage(key, undefined)).toMatchObject({ nodes: [], waitMs: 0 });
});

it('locateToMessage names whom to ask again, and waits whole milliseconds', () => {
  const message = locateToMessage(key, { nodes: ['a', 'b'], waitMs: 0.4 });
  const sent = fromBinary(LocateRequestSchema, toBinary(LocateRequestSchema, message));
  expect(sent).toMatchObject({ nodes: ['a', 'b'], waitMs: 1 });
});

it('locateToMessage asks everybody where so many are silent that no agent would take the names', () => {
  const nodes = Array.from({ length: 4096 }, (_, n) => `node-${n}.some-cluster.test`);
  const message = locateToMessage(key, { nodes, waitMs: 1000 });
  expect(toBinary(LocateRequestSchema, message).length).toBeLessThan(MAX_REQUEST_BYTES);
  expect(message.nodes).toEqual([]);
});

it('locateFromMessage gives the names of those that were silent', () => {
  const summary = { asked: 3, failed: 1, silent: ['b'] };
  const message = create(LocateResponseSchema, { event: { case: 'summary', value: summary } });
  expect(locateFromMessage(message)).toEqual({ summary });
});

it('locateFromMessage leaves out what it does not know', () => {
  expect(locateFromMessage(create(LocateResponseSchema))).toBeUndefined();
});
