import type { Fine } from '../services/b/fine.ts';

export const broken: Fine = 'breaks nothing';
