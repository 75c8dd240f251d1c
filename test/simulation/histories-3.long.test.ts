import { testHistories } from './histories.ts';

testHistories({ first: 101, count: 150 });
