import { packagedContainerd } from '../support/containerd-version.ts';
import { describeHosts } from './describe-hosts.ts';

describeHosts(packagedContainerd);
