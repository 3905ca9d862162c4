import type { Digest } from '../../oci/digest.ts';
import { copiesAhead, type CopyHolder } from './copy-choice.ts';
import type { CopyPoll } from './copy-count.ts';

/**
 * What the last two times that everybody was asked have shown. A held copy is given up only for
 * copies that were there both times, since one look may see what is just coming or going.
 */
export class CopyKnowledge {
  readonly #selfName: string;
  #latest: CopyPoll | undefined;
  #previous: CopyPoll | undefined;

  constructor(options: { readonly selfName: string }) {
    this.#selfName = options.selfName;
  }

  /** There are others, and none of them has answered. */
  get isBlind(): boolean {
    const { asked = 0, answered = 0 } = this.#latest ?? {};
    return asked > 0 && answered === 0;
  }

  add(poll: CopyPoll): void {
    this.#previous = this.#latest;
    this.#latest = poll;
  }

  /** The complete copies that other nodes have of an image. */
  others(target: Digest): readonly CopyHolder[] {
    return this.#latest?.holders.get(target) ?? [];
  }

  /** How many of them come before this node's own copy. */
  ahead(target: Digest, { isHeld }: { readonly isHeld: boolean }): number {
    const self = { node: this.#selfName, isNamed: !isHeld };
    const others = isHeld ? this.#lasting(target) : this.others(target);
    return copiesAhead(target, self, others);
  }

  status(): { readonly nodesAsked: number; readonly nodesAnswered: number } {
    const { asked = 0, answered = 0 } = this.#latest ?? {};
    return { nodesAsked: asked, nodesAnswered: answered };
  }

  #lasting(target: Digest): CopyHolder[] {
    const before = new Map(
      this.#previous?.holders.get(target)?.map(({ node, isNamed }) => [node, isNamed]),
    );
    return this.others(target).flatMap(({ node, isNamed }) => {
      const wasNamed = before.get(node);
      return wasNamed === undefined ? [] : [{ node, isNamed: isNamed && wasNamed }];
    });
  }
}
