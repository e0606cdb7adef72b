import type { LoggerOptions } from 'pino';
import pretty from 'pino-pretty';
import type { Config } from './config.ts';
import { redact } from './redact.ts';

/**
 * Moleculer's logger option: pino, every argument redacted before it is formatted. JSON lines in production,
 * one readable line in development.
 */
export function loggerOptions(config: Pick<Config, 'logLevel' | 'logFormat'>) {
  const options: LoggerOptions = {
    level: config.logLevel,
    hooks: {
      logMethod(args, method) {
        const [first, ...rest] = args.map((arg) => redact(arg));
        // pino takes fields first and the text second; Moleculer's own modules log the text first
        const fields =
          typeof first === 'string' ? rest.find((arg) => typeof arg === 'object' && arg !== null) : undefined;
        const words = rest.filter((arg) => typeof arg === 'string');
        // pino would drop them, and Moleculer puts an error's reason there
        if (typeof first === 'string' && fields === undefined && words.length > 0 && !first.includes('%'))
          Reflect.apply(method, this, [[first, ...words].join(' ')]);
        else if (typeof first !== 'string' || fields === undefined)
          Reflect.apply(method, this, [first, ...rest]);
        else Reflect.apply(method, this, [fields, first]);
      },
    },
  };
  const destination =
    config.logFormat === 'pretty'
      ? pretty({
          sync: true,
          colorize: process.stdout.isTTY,
          ignore: 'pid,hostname,nodeID,ns,svc,ver',
          translateTime: 'HH:MM:ss.l',
        })
      : undefined;
  return { type: 'Pino' as const, options: { level: config.logLevel, pino: { options, destination } } };
}
