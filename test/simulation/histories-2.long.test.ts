import { testHistories } from './histories.ts';

testHistories({ first: 51, count: 50 });
