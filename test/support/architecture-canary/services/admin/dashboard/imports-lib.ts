import { fine } from '../../../lib/fine.ts';

export const broken = fine;
