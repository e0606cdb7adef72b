import type { z } from 'zod';
import type { ErrorCode } from '../contracts/errors.ts';
import { AppError } from './errors.ts';

const maxDepth = 32;

/**
 * Is there a key that changes an object's prototype, or nesting deeper than 32? JSON.parse makes `__proto__`
 * an own property, and a later Object.assign would make it the prototype.
 */
export function isHostile(value: unknown, depth = 0): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (depth > maxDepth) return true;
  if (Array.isArray(value)) return value.some((item) => isHostile(item, depth + 1));
  for (const key of Object.keys(value)) {
    if (key === '__proto__' || isHostile(Reflect.get(value, key), depth + 1)) return true;
  }
  return false;
}

/** The parsed value, or an error of this code that names each refused field (never its value). */
export function parseOrRefuse<S extends z.ZodType>(
  schema: S,
  value: unknown,
  code: ErrorCode = 'VALIDATION',
): z.output<S> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const fields = parsed.error.issues.slice(0, 20).map((issue) => ({
    path: issue.path.join('.').slice(0, 100),
    message: issue.message.slice(0, 200),
  }));
  throw new AppError(code, { fields });
}
