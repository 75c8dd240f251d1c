import { testDamaged } from './damaged.ts';

testDamaged({ placesMax: 12, bytesRandom: 60, filesMax: 24 });
