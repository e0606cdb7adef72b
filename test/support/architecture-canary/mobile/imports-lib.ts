import { fine } from '../lib/fine';

export const broken = fine;
