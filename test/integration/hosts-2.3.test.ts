import { containerdVersion } from '../support/containerd-version.ts';
import { describeHosts } from './describe-hosts.ts';

describeHosts(containerdVersion('2.3'));
