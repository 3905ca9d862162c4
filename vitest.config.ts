import { defineConfig } from 'vitest/config';

// What takes long, repeats on another containerd what `npm test` shows on the one that Debian
// packages, or needs what is built with Go, runs in CI, by `npm run test:all`.
const onlyInCi = [
  'test/faults/containerd/{containerd,keeper}-{1.7,2.*}.test.ts',
  'test/integration/{full-disk,hosts-2.*,hosts-kill,identity,last-copies,membership,small-disk}.test.ts',
  'test/integration/{agents-return,bootstrap,cold-start,demo,doctor,packages}.test.ts',
  'test/integration/{pod-outage,pod-rolling-restart,report-prove,report-truth}.test.ts',
  'test/integration/{backfill,dead-start,keeper,reload,repair,restart}.test.ts',
  'test/faults/matrix/matrix.test.ts',
  'test/soak/soak.test.ts',
];

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts', 'test/*.test.ts'],
          testTimeout: 10_000,
        },
      },
      {
        test: {
          name: 'contract',
          include: ['test/contract/**/*.test.ts', 'test/fuzz/**/*.test.ts'],
          testTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'chart',
          include: ['test/chart/**/*.test.ts'],
          globalSetup: ['test/support/global-teardown.ts'],
          testTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          exclude: process.env['SALVOR_TEST_ALL'] === undefined ? onlyInCi : [],
          globalSetup: ['test/support/global-teardown.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'faults',
          include: ['test/faults/**/*.test.ts', 'test/soak/**/*.test.ts'],
          exclude: process.env['SALVOR_TEST_ALL'] === undefined ? onlyInCi : [],
          globalSetup: ['test/support/global-teardown.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
