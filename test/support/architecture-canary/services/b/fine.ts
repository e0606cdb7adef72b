export type { Fine } from '../../lib/fine.ts';
