import { create } from '@bufbuild/protobuf';

import { ImageService, PullImageRequestSchema } from '../../rpc/gen/cri/runtime/v1/images_pb.ts';
import { methodDefinition } from '../../rpc/service-definition.ts';
import type { ContainerdConnection } from './containerd-connection.ts';

const pullImage = methodDefinition(ImageService.method.pullImage);

/**
 * Pulls an image as kubelet does, through CRI at containerd's own socket.
 *
 * @returns what the runtime said: its name for the image, or why there is none
 */
export async function pullByCri(
  connection: Pick<ContainerdConnection, 'unary'>,
  image: string,
  options: { readonly timeoutMs: number; readonly signal: AbortSignal },
): Promise<{ readonly isPulled: boolean; readonly answer: string }> {
  const request = create(PullImageRequestSchema, { image: { image } });
  const action = `Cannot pull ${image}`;
  try {
    const response = await connection.unary(pullImage, request, { ...options, action });
    return { isPulled: true, answer: response?.imageRef ?? '' };
  } catch (error) {
    options.signal.throwIfAborted();
    return { isPulled: false, answer: error instanceof Error ? error.message : String(error) };
  }
}
