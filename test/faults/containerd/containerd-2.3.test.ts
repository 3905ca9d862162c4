import { describeFaults } from './describe-faults.ts';
import { describeRepair } from './describe-repair.ts';

describeFaults('2.3');
describeRepair('2.3');
