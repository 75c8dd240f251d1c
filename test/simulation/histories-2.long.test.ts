import { testHistories } from './histories.ts';

testHistories({ first: 37, count: 64 });
