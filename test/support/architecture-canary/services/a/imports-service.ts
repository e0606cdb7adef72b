import type { Fine } from '../b/fine.ts';

export type Broken = Fine;
