import { testDamaged } from './damaged.ts';

// What takes longer is in damaged.long.test.ts.
testDamaged({ placesMax: 3, bytesRandom: 14, filesMax: 6 });
