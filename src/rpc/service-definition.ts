import type { MethodDefinition, ServiceDefinition } from '@grpc/grpc-js';
import {
  fromBinary,
  toBinary,
  type DescMessage,
  type DescMethod,
  type DescService,
  type MessageShape,
} from '@bufbuild/protobuf';

/** How the messages of one side of a method become bytes and come back. */
export interface MessageCodec<T> {
  readonly serialize: (value: T) => Buffer;
  readonly deserialize: (bytes: Buffer) => T;
}

/**
 * The codec of a generated message type.
 *
 * @throws (on deserialize) when the bytes are not a message of this type
 */
function messageCodec<D extends DescMessage>(schema: D): MessageCodec<MessageShape<D>> {
  return {
    serialize(value) {
      const bytes = toBinary(schema, value);
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    },
    deserialize: (bytes) => fromBinary(schema, bytes),
  };
}

/**
 * Describes one generated method the way grpc-js wants it, for clients and servers alike.
 *
 * @param codecs replaces a side's codec, for bytes that should not be copied
 */
export function methodDefinition<M extends DescMethod>(
  method: M,
  codecs: { response?: MessageCodec<never> } = {},
): MethodDefinition<MessageShape<M['input']>, MessageShape<M['output']>> {
  const request = messageCodec(method.input);
  const response = (codecs.response ?? messageCodec(method.output)) as unknown as MessageCodec<
    MessageShape<M['output']>
  >;
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    requestStream:
      method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
    responseStream:
      method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
    requestSerialize: request.serialize,
    requestDeserialize: request.deserialize as (bytes: Buffer) => MessageShape<M['input']>,
    responseSerialize: response.serialize,
    responseDeserialize: response.deserialize,
    originalName: method.localName,
  };
}

/**
 * Describes a generated service the way grpc-js wants it.
 *
 * @param codecs by a method's local name, as in {@link methodDefinition}
 */
export function serviceDefinition(
  service: DescService,
  codecs: Readonly<Record<string, { response?: MessageCodec<never> }>> = {},
): ServiceDefinition {
  return Object.fromEntries(
    service.methods.map((method) => [
      method.localName,
      methodDefinition(method, codecs[method.localName]),
    ]),
  );
}
