import { containerdVersion } from '../../support/containerd-version.ts';
import { describeKeeper } from './describe-keeper.ts';

describeKeeper(containerdVersion('2.3'));
