import type { FaultProxy } from '../../support/fault-proxy.ts';
import { startDeafPort } from '../../support/deaf-port.ts';
import type { TestScope } from '../../support/test-scope.ts';
import type { TokenServer } from '../../support/token-server.ts';

/** A node that has the image: one as it should be, one whose copy of the layer is altered. */
export type Holder = 'honest' | 'liar';

/** What a fault is done to. */
export interface FaultTarget {
  readonly scope: TestScope;
  /** Everything that asks the registry goes through it. */
  readonly proxy: FaultProxy;
  readonly layerDigest: string;
  /** Half of what containerd fetches of the layer in one request, in bytes. */
  readonly halfBytes: number;
  readonly tokens: TokenServer | undefined;
}

/** Something that goes wrong, and stays wrong. */
export interface FaultCase {
  /** Also the name of the image's repository. */
  readonly id: string;
  /** Says what is wrong, for people. */
  readonly title: string;
  readonly holders: readonly Holder[];
  /** Whether the registry wants tokens. */
  readonly needsToken?: true;
  /** containerd alone waits long, and other pulls of its node may wait with it. */
  readonly holdsUp?: true;
  readonly breakIt: (target: FaultTarget) => Promise<void>;
}

const honest: readonly Holder[] = ['honest'];

function ofLayer({ layerDigest }: FaultTarget): (exchange: { path: string }) => boolean {
  return ({ path }) => path.includes(layerDigest);
}

/** Every case, in the order of the support table. */
export const faultCases: readonly FaultCase[] = [
  {
    id: 'healthy',
    title: 'nothing is wrong',
    holders: [],
    breakIt: async () => undefined,
  },
  {
    id: 'refused',
    title: 'the registry refuses connections',
    holders: honest,
    breakIt: ({ proxy }) => proxy.setMode({ kind: 'refuse' }),
  },
  {
    id: 'deaf',
    title: 'connections to the registry are never made',
    holders: honest,
    holdsUp: true,
    breakIt: async ({ scope, proxy }) => {
      await proxy.setMode({ kind: 'refuse' });
      await startDeafPort(scope, proxy.port);
    },
  },
  {
    id: 'unread',
    title: 'the registry accepts and never reads',
    holders: honest,
    holdsUp: true,
    breakIt: ({ proxy }) => proxy.setMode({ kind: 'blackhole' }),
  },
  {
    id: 'silent',
    title: 'the registry reads and never answers',
    holders: honest,
    holdsUp: true,
    breakIt: ({ proxy }) => proxy.setMode({ kind: 'silent' }),
  },
  {
    id: 'cut',
    title: 'the layer ends at its half',
    holders: honest,
    breakIt: (target) => cutInHalf(target, 'fin'),
  },
  {
    id: 'reset',
    title: 'the layer is reset at its half',
    holders: honest,
    breakIt: (target) => cutInHalf(target, 'rst'),
  },
  {
    id: 'stall',
    title: 'the layer stands still at its half',
    holders: honest,
    holdsUp: true,
    breakIt: (target) =>
      target.proxy.setMode({
        kind: 'stall',
        afterBytes: target.halfBytes,
        match: ofLayer(target),
      }),
  },
  {
    id: 'too-many-requests',
    title: 'the registry answers 429',
    holders: honest,
    breakIt: ({ proxy }) =>
      proxy.setMode({ kind: 'answer', status: 429, headers: { 'retry-after': '60' } }),
  },
  {
    id: 'unavailable',
    title: 'the registry answers 503',
    holders: honest,
    breakIt: ({ proxy }) => proxy.setMode({ kind: 'answer', status: 503 }),
  },
  {
    id: 'token-service',
    title: 'the token service is down',
    holders: honest,
    needsToken: true,
    breakIt: async ({ tokens }) => tokens?.stop(),
  },
  {
    id: 'liar-beside-honest',
    title: 'refuses connections, and one of two nodes has altered bytes',
    holders: ['liar', 'honest'],
    breakIt: ({ proxy }) => proxy.setMode({ kind: 'refuse' }),
  },
  {
    id: 'liar',
    title: 'refuses connections, and the only node has altered bytes',
    holders: ['liar'],
    breakIt: ({ proxy }) => proxy.setMode({ kind: 'refuse' }),
  },
  {
    id: 'cut-alone',
    title: 'the layer ends at its half, and no node has it',
    holders: [],
    breakIt: (target) => cutInHalf(target, 'fin'),
  },
  {
    id: 'cut-liar',
    title: 'the layer ends at its half, and the only node has altered bytes',
    holders: ['liar'],
    breakIt: (target) => cutInHalf(target, 'fin'),
  },
];

async function cutInHalf(target: FaultTarget, how: 'fin' | 'rst'): Promise<void> {
  const { proxy, halfBytes } = target;
  await proxy.setMode({ kind: 'cut', afterBytes: halfBytes, how, match: ofLayer(target) });
}
