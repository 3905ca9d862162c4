import { describeRepair } from './describe-repair.ts';

describeRepair('1.6');
