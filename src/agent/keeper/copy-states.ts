import type { Digest } from '../../oci/digest.ts';
import type { CopyState } from './copy-choice.ts';
import type { CopyKnowledge } from './copy-knowledge.ts';
import type { CopyPolicy } from './copy-policy.ts';
import type { Guard, GuardedImage } from './guard-lease.ts';
import type { NodeImage } from './node-images.ts';

/** What is known, as of the last look. */
export interface CopySituation {
  /** The runtime's images, by target. */
  readonly images: ReadonlyMap<Digest, NodeImage>;
  /** By target. */
  readonly guards: ReadonlyMap<Digest, Guard>;
  readonly policy: Pick<CopyPolicy, 'wantedOf'>;
  readonly knowledge: Pick<CopyKnowledge, 'others' | 'ahead'>;
}

/** Puts together what there is to decide about: whole images, and all that is guarded. */
export function copyStates(situation: CopySituation): CopyState[] {
  const { images, guards } = situation;
  const states: CopyState[] = [];
  for (const [target, image] of images) {
    const { isComplete: isWhole, isInUse } = image;
    if (!isWhole && !guards.has(target)) continue;
    states.push({ ...stateOf(image, isInUse ? 'inUse' : 'idle', situation), isWhole });
  }
  for (const [target, guard] of guards) {
    if (!images.has(target)) states.push(stateOf(guard, 'held', situation));
  }
  return states;
}

function stateOf(
  { target, blobs, names, usedAtMs }: GuardedImage,
  state: CopyState['state'],
  { guards, policy, knowledge }: CopySituation,
): CopyState {
  return {
    target,
    blobs,
    wanted: policy.wantedOf(names),
    others: knowledge.others(target).length,
    ahead: knowledge.ahead(target, { isHeld: state === 'held' }),
    state,
    isGuarded: guards.has(target),
    isWhole: true,
    usedAtMs,
  };
}
