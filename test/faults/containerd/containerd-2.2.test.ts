import { describeFaults } from './describe-faults.ts';
import { describeRepair } from './describe-repair.ts';

describeFaults('2.2');
describeRepair('2.2');
