import { describeKeeper } from '../faults/containerd/describe-keeper.ts';

describeKeeper();
