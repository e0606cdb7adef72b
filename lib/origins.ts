import type { Config } from './config.ts';

const localOrigin = /^https?:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/;

/** May a page of this origin connect? Apps send none. Development also lets any page of this machine in. */
export function isAllowedOrigin(
  config: Pick<Config, 'corsOrigins' | 'nodeEnv'>,
  origin: string | undefined,
): boolean {
  if (origin === undefined || config.corsOrigins.includes(origin)) return true;
  return config.nodeEnv !== 'production' && localOrigin.test(origin);
}
