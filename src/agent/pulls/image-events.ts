import { fromBinary } from '@bufbuild/protobuf';
import { ImageCreateSchema } from '../../rpc/gen/containerd/events/image_pb.ts';
import type { Envelope } from '../../rpc/gen/containerd/services/events/v1/events_pb.ts';

/** Of images that containerd names. Both carry a name and labels in the same fields. */
export const IMAGE_TOPICS: readonly string[] = ['^/images/create$', '^/images/update$'];

/**
 * The image that such an event is about.
 *
 * @returns undefined for an event without content
 * @throws when it cannot be decoded
 */
export function imageOf({
  event,
}: Envelope):
  { readonly name: string; readonly labels: Readonly<Record<string, string>> } | undefined {
  if (event === undefined) return undefined;
  const { name, labels } = fromBinary(ImageCreateSchema, event.value);
  return { name, labels };
}
