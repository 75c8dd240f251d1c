import { testHistories } from './histories.ts';

testHistories({ first: 1, count: 36 });
