import { join } from 'node:path';
import { loadSync } from '@grpc/proto-loader';
import { describe, expect, test } from 'vitest';
import { previousProtocol } from '../../support/older-agent.ts';
import { repositoryRoot } from '../../support/tools.ts';

interface Field {
  readonly name: string;
  readonly number: number;
  readonly type: string;
  readonly label: string;
  readonly typeName: string;
}

interface Message {
  readonly format: string;
  readonly type: {
    readonly field: readonly Field[];
    readonly reservedRange: readonly { readonly start: number; readonly end: number }[];
  };
}

interface Method {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly requestType: { readonly type: { readonly name: string } };
  readonly responseType: { readonly type: { readonly name: string } };
}

type Protocol = Readonly<Record<string, unknown>>;

const load = (path: string): Protocol => loadSync(path);
const previous = load(previousProtocol);
const current = load(join(repositoryRoot, 'proto/salvor/agent/v1/agent.proto'));

const isMessage = (definition: unknown): definition is Message =>
  typeof definition === 'object' && definition !== null && 'format' in definition;

const messagesOf = (protocol: Protocol): [string, Message][] =>
  Object.entries(protocol).filter((entry): entry is [string, Message] => isMessage(entry[1]));

const methodsOf = (protocol: Protocol): [string, Method][] =>
  Object.values(protocol)
    .filter((definition) => !isMessage(definition))
    .flatMap((service) => Object.values(service as Record<string, Method>))
    .map((method) => [method.path, method]);

/** What is on the wire of a field; its name is not. */
const shape = ({ label, number, type, typeName }: Field): object => ({
  label,
  number,
  type,
  typeName,
});

describe('the wire protocol, beside that of the version before', () => {
  const methods = new Map(methodsOf(current));
  const messages = new Map(messagesOf(current));

  test('is compared with calls and messages that are there', () => {
    expect(methodsOf(previous).length).toBeGreaterThan(7);
    expect(messagesOf(previous).length).toBeGreaterThan(15);
  });

  test.each(methodsOf(previous))('still has %s, with the same messages', (path, before) => {
    const now = methods.get(path);
    expect(now).toBeDefined();
    expect([now!.requestStream, now!.responseStream]).toEqual([
      before.requestStream,
      before.responseStream,
    ]);
    expect([now!.requestType.type.name, now!.responseType.type.name]).toEqual([
      before.requestType.type.name,
      before.responseType.type.name,
    ]);
  });

  test.each(messagesOf(previous))('%s keeps the number and type of every field', (name, before) => {
    const now = messages.get(name);
    expect(now).toBeDefined();
    for (const field of before.type.field) {
      const same = now!.type.field.find(({ number }) => number === field.number);
      if (same === undefined) {
        const { number } = field;
        // A field may go; its number must never mean anything else.
        const isReserved = now!.type.reservedRange.some(
          ({ end, start }) => number >= start && number < end,
        );
        expect(isReserved, `${name}.${field.name}: reserve ${number}`).toBe(true);
        continue;
      }
      expect(shape(same), field.name).toEqual(shape(field));
    }
  });

  test.each(messagesOf(current))('%s uses no number that was reserved before', (name, now) => {
    const before = messagesOf(previous).find(([known]) => known === name)?.[1];
    for (const { end, start } of before?.type.reservedRange ?? []) {
      const reused = now.type.field.filter(({ number }) => number >= start && number < end);
      expect(reused).toEqual([]);
    }
  });
});
