/** The media types that the program has to know. */
export const MEDIA_TYPE = {
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerManifestList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerManifestV1: 'application/vnd.docker.distribution.manifest.v1+json',
  dockerManifestV1Signed: 'application/vnd.docker.distribution.manifest.v1+prettyjws',
  octetStream: 'application/octet-stream',
  json: 'application/json',
} as const;

/** The Accept header of containerd when it resolves a reference. */
export const MANIFEST_ACCEPT: string = [
  MEDIA_TYPE.dockerManifest,
  MEDIA_TYPE.dockerManifestList,
  MEDIA_TYPE.ociManifest,
  MEDIA_TYPE.ociIndex,
  '*/*',
].join(', ');

const MAX_CONTENT_TYPE_CHARS = 1024;
const ESSENCE_PATTERN = /^[A-Za-z0-9!#$&^_.+-]{1,127}\/[A-Za-z0-9!#$&^_.+-]{1,127}$/;

/**
 * The media type of a Content-Type header alone: lowercase, without parameters.
 *
 * @returns undefined when there is none, or none that could be read
 */
export function mediaTypeEssence(contentType: string | undefined): string | undefined {
  if (contentType === undefined || contentType.length > MAX_CONTENT_TYPE_CHARS) {
    return undefined;
  }
  const semicolon = contentType.indexOf(';');
  const essence = (semicolon === -1 ? contentType : contentType.slice(0, semicolon)).trim();
  return ESSENCE_PATTERN.test(essence) ? essence.toLowerCase() : undefined;
}

/** Whether content of this type lives under /manifests/, the old signed formats included. */
export function isManifestMediaType(mediaType: string | undefined): boolean {
  return (
    isImageManifestMediaType(mediaType) ||
    isIndexMediaType(mediaType) ||
    isSchema1MediaType(mediaType)
  );
}

/** Whether it is a manifest in one of Docker's old signed formats. */
export function isSchema1MediaType(mediaType: string | undefined): boolean {
  return (
    mediaType === MEDIA_TYPE.dockerManifestV1 || mediaType === MEDIA_TYPE.dockerManifestV1Signed
  );
}

/** Whether it is a list of manifests, in OCI's or in Docker's form. */
export function isIndexMediaType(mediaType: string | undefined): boolean {
  return mediaType === MEDIA_TYPE.ociIndex || mediaType === MEDIA_TYPE.dockerManifestList;
}

/** Whether it is the manifest of one image, in OCI's or in Docker's form. */
export function isImageManifestMediaType(mediaType: string | undefined): boolean {
  return mediaType === MEDIA_TYPE.ociManifest || mediaType === MEDIA_TYPE.dockerManifest;
}
