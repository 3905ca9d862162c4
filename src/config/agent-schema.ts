import { agentLimitsSection } from './agent-limits-schema.ts';
import { bootstrapSection } from './bootstrap-schema.ts';
import { copiesSection } from './copies-schema.ts';
import { membersSection } from './members-schema.ts';
import {
  bytes,
  bytesPerSecond,
  choice,
  count,
  flag,
  milliseconds,
  section,
  text,
} from './setting.ts';

const mib = 1024 ** 2;

/** How much the blobs in a directory may take. */
export const storeBytes = bytes(
  20 * 1024 * mib,
  'Disk space for blobs; the least recently used go first.',
  {
    minimum: mib,
  },
);

/** Everything about the agent; what it says to other nodes and what it keeps. */
export const agentSection = section(
  "The agent: reads this node's content store and serves other nodes.",
  {
    listen: text({
      default: '0.0.0.0:7490',
      minLength: 1,
      format: 'address',
      description: 'Address for other nodes.',
    }),
    admin: text({
      default: '127.0.0.1:7491',
      format: 'address',
      description: 'Address of /metrics, /healthz and /readyz. Empty: none.',
    }),
    socket: text({
      default: '/run/salvor/agent.sock',
      format: 'absolutePath',
      description: "Unix socket for this node's registry.",
    }),
    bootstrap: bootstrapSection,
    store: section('Where the content is.', {
      kind: choice(
        ['containerd', 'directory'],
        "containerd's own content store, or a directory with an OCI image layout.",
      ),
      containerd: section('Used when kind is containerd.', {
        socket: text({
          default: '/run/containerd/containerd.sock',
          format: 'absolutePath',
          description: "containerd's gRPC socket.",
        }),
        namespace: text({
          default: 'k8s.io',
          maxLength: 76,
          description: 'containerd namespace of the images.',
        }),
        contentPath: text({
          default: '',
          format: 'absolutePath',
          description:
            'Directory of its content store, to read blob files without containerd. Empty: ask it.',
        }),
      }),
      directory: section('Used when kind is directory.', {
        path: text({
          default: '',
          format: 'absolutePath',
          computedDefault: 'agentStore',
          description: 'Directory of the OCI image layout; made if missing.',
        }),
        maxSizeBytes: storeBytes,
      }),
    }),
    copies: copiesSection,
    diskIntervalMs: milliseconds(1000, 'Between two looks at how full the disk is.', {
      minimum: 50,
      maximum: 60_000,
    }),
    members: membersSection,
    limits: agentLimitsSection,
    keeper: section('Keeping the layers of pulled images where containerd would discard them.', {
      mode: choice(
        ['auto', 'off'],
        "auto: where containerd's discard_unpacked_layers has left the references to layers off a " +
          'manifest, put them back when a blob of the image is pulled, so that layers stay as long ' +
          'as the image; changes nothing elsewhere. off: change no label.',
      ),
    }),
    backfill: section('Fetching of layers that images on this node lack.', {
      mode: choice(
        ['auto', 'always', 'off'],
        'auto: where containerd is seen to discard layers once they are unpacked; always; off, as it ' +
          'is where agent.keeper.mode is off, since layers would not stay. Nodes are asked first, ' +
          "then the upstream, through this node's registry and without credentials.",
      ),
      onlyInUse: flag(true, 'Only for images that a container on this node was made from.'),
      bytesPerSecond: bytesPerSecond(8 * mib, 'Speed of fetching, repairs included.'),
      intervalMs: milliseconds(
        600_000,
        'Between looks at all images, give or take a quarter. The first one comes at a random moment ' +
          'of this time, at most 10 min.',
        { minimum: 1000, maximum: 7 * 86_400_000 },
      ),
      maxUsedPercent: count(
        70,
        'Percent of the file system of the content store that may be used; nothing is fetched that ' +
          'would fill it further, for repairs neither. Keep it below agent.copies.releaseAtPercent.',
        { maximum: 100 },
      ),
    }),
    repair: section('Replacing of content that is wrong or lost.', {
      mode: choice(
        ['auto', 'off'],
        'auto: fetch it as backfill does and put it in the place of what is there; off: only report it.',
      ),
    }),
    report: section('What would still start, for the metrics and for `salvor report`.', {
      intervalMs: milliseconds(
        600_000,
        'Between reports that are made for the metrics, by one member of the cluster. 0: none.',
        { minimum: 0, maximum: 7 * 86_400_000 },
      ),
      memberTimeoutMs: milliseconds(20_000, 'For one member to say what it has.', {
        minimum: 100,
        maximum: 600_000,
      }),
    }),
    integrity: section('Hashing of stored blobs in the background.', {
      bytesPerSecond: bytesPerSecond(64 * mib, 'Speed of hashing.'),
      sweepIntervalMs: milliseconds(3_600_000, 'Between looks for blobs that changed on disk.', {
        minimum: 1000,
        maximum: 7 * 86_400_000,
      }),
    }),
  },
);
