import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DemoImage, DemoNode } from './demo-node.ts';
import type { UpstreamProcess } from './upstream-process.ts';

const ACCEPT =
  'application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, */*';

/**
 * What a reader types to cause the outage by hand, and to pull before and after.
 *
 * @param parts.node never had the image
 * @param parts.layer the digest of a layer
 */
export function renderInstructions(parts: {
  readonly image: DemoImage;
  readonly upstream: UpstreamProcess;
  readonly node: DemoNode;
  readonly layer: string;
}): string[] {
  const { image, upstream, node, layer } = parts;
  const { registry, repository, tag } = image;
  const { containerd } = node;
  const name = `${registry}/${repository}:${tag}`;
  const url = (path: string): string =>
    `'${node.registryUrl}/v2/${repository}/${path}?ns=${registry}'`;
  const accept = `-H 'Accept: ${ACCEPT}'`;
  // Other clients name the registry in the path, which leaves no room for a port.
  const isPlain = !registry.includes(':');
  return [
    `Everything keeps running until Ctrl-C. Node ${node.name} is new and never had the image.`,
    '',
    `Cause the outage (the registry is process ${upstream.pid}):`,
    `  kill -STOP ${upstream.pid}    # it takes connections and says nothing`,
    `  kill -CONT ${upstream.pid}    # it goes on`,
    `  kill -KILL ${upstream.pid}    # it is dead`,
    `  ${shell(upstream.command)}    # it is back, until you end it`,
    '',
    `Pull through node ${node.name}, and see who served it in Salvor-Source:`,
    `  curl -i ${accept} ${url(`manifests/${tag}`)}`,
    `  curl -sD /dev/stderr ${url(`blobs/${layer}`)} | sha256sum`,
    ...(containerd === undefined
      ? []
      : [
          `  ${shell(containerd.pullCommand(name))}`,
          `  ${shell(containerd.removeCommand(name))}    # to pull it again`,
        ]),
    ...(isPlain
      ? [
          '  skopeo copy --src-tls-verify=false ' +
            `docker://${node.registryUrl.slice('http://'.length)}/${name} ` +
            `dir:${join(tmpdir(), 'salvor-demo-copy')}`,
        ]
      : []),
    '',
    'Ask why:',
    `  ${shell([process.execPath, process.argv[1] ?? '', 'why'])} ` +
      `--registry-admin ${node.adminAddress} ${name}`,
  ];
}

function shell(words: readonly string[]): string {
  return words
    .map((word) => (/^[\w./:=@,+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(' ');
}
