import { testHistories } from './histories.ts';

testHistories({ first: 251, count: 150 });
