import { adminRoles, type Role } from '../contracts/common.ts';
import { AppError } from './errors.ts';

/** Who calls, as the door found out; in `ctx.meta.user`. */
export interface Caller {
  id: string;
  role: Role;
  sessionId: string;
  /**
   * Only at doors that admit more than live sessions: it had `ended`, or nobody could tell. Such a caller has the least of
   * roles.
   */
  standing?: 'live' | 'ended' | 'unknown';
}

/**
 * Who may call an action. `public`: anybody. `user`: anybody who is signed in. A list: these roles.
 * `internal`: our own services only; such an action has no route.
 */
export type Permission = 'public' | 'user' | 'internal' | readonly Role[];

export const isAdmin = ({ role }: Pick<Caller, 'role'>): boolean =>
  adminRoles.some((admin) => admin === role);

/** Throws UNAUTHENTICATED or FORBIDDEN unless the caller may. */
export function requirePermission(permission: Permission, caller: Caller | null | undefined): void {
  if (permission === 'public' || permission === 'internal') return;
  if (!caller) throw new AppError('UNAUTHENTICATED');
  if (permission !== 'user' && !permission.includes(caller.role)) throw new AppError('FORBIDDEN');
}
