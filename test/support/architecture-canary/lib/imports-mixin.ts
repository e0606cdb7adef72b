export { broken } from '../mixins/imports-service.ts';
