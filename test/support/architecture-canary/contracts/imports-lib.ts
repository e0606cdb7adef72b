import type { Fine } from '../lib/fine.ts';

export type Broken = Fine;
