import { bytes, count, list, milliseconds, section, text } from './setting.ts';

const gib = 1024 ** 3;

const copyPolicySection = section('How many copies of what a pattern matches.', {
  match: text({
    default: '',
    minLength: 1,
    format: 'namePattern',
    description: 'Registry and repository, such as docker.io/library/* or *.',
  }),
  wanted: count(2, 'Complete copies that the cluster shall have. 0: none is kept.', {
    minimum: 0,
    maximum: 100,
  }),
});

/** Settings of last copies. */
export const copiesSection = section(
  'Copies of images that are kept when the runtime removes them, since too few others have one.',
  {
    wanted: count(
      2,
      'Complete copies, per platform, that the cluster shall have of an image that no policy ' +
        'matches. 0: none is kept.',
      { minimum: 0, maximum: 100, reloadable: true },
    ),
    policies: list(copyPolicySection, {
      default: [],
      reloadable: true,
      description: 'How many copies of which repositories; the first that matches decides.',
    }),
    budgetBytes: bytes(10 * gib, 'Disk space for kept images. The smaller budget counts.', {
      minimum: 0,
      reloadable: true,
    }),
    budgetPercent: count(5, 'The same in percent of the file system of the content store.', {
      minimum: 0,
      maximum: 50,
      reloadable: true,
    }),
    releaseAtPercent: count(
      75,
      'How full the file system is, in percent, when kept images begin to go, those with the most ' +
        'copies elsewhere and the oldest first. Must be below what kubelet frees to (80).',
      { maximum: 79, reloadable: true },
    ),
    dropAtPercent: count(
      80,
      'How full it is when all of them go at once. Must be below where kubelet begins to remove ' +
        'images (85).',
      { maximum: 84, reloadable: true },
    ),
    pollIntervalMs: milliseconds(
      60_000,
      'Between two times that all members are asked what they hold, give or take a fifth; ' +
        'longer in the same measure as there are more than 20 members, at most 15 times.',
      { minimum: 1000, maximum: 3_600_000, reloadable: true },
    ),
  },
);
