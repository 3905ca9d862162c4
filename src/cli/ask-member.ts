import type { HeldContent } from '../agent/held-content.ts';
import type { AskMember } from '../discovery/locate.ts';
import type { AgentPool } from '../rpc/agent-pool.ts';

/** Asks a member what it has or knows: this node itself, or another one over its connection. */
export function askMember(parts: {
  readonly selfName: string;
  readonly content: HeldContent;
  readonly pool: AgentPool;
  readonly readers: { readonly count: number };
  readonly limits: { readonly maxReaders: number };
}): AskMember {
  const { selfName, content, pool, readers, limits: bounds } = parts;
  return async (member, key, limits) => {
    const isSelf = member.name === selfName;
    if ('name' in key) {
      const { tags, registrySeen } = isSelf
        ? await content.resolve(key.name, limits)
        : await pool.client(member.address, member.name).resolve(key.name, limits);
      if (tags.length === 0 && !registrySeen) return undefined;
      return { sizeBytes: 0, verified: false, busy: false, tags, registrySeen };
    }
    if (!isSelf) {
      const blob = await pool.client(member.address, member.name).stat(key.digest, limits);
      return blob === undefined ? undefined : { ...blob, tags: [], registrySeen: false };
    }
    const held = await content.stat(key.digest, limits);
    if (held === undefined) return undefined;
    const { sizeBytes, verified } = held;
    return {
      sizeBytes,
      verified,
      busy: readers.count >= bounds.maxReaders,
      tags: [],
      registrySeen: false,
    };
  };
}
