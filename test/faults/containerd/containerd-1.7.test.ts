import { describeFaults } from './describe-faults.ts';
import { describeRepair } from './describe-repair.ts';

describeFaults('1.7');
describeRepair('1.7');
