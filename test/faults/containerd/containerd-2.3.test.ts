import { describeFaults } from './describe-faults.ts';

describeFaults('2.3');
