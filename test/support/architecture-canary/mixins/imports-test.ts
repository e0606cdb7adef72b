import type { Helper } from '../test/helper.ts';

export type Broken = Helper;
