export { broken } from './dashboard/imports-lib.ts';
