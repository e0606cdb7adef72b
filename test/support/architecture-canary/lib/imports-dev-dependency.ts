import { version } from 'typescript';

export const broken = version;
