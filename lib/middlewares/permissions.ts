import { type Context, Errors, type Middleware, type Service } from 'moleculer';
import type { Meta } from '../context.ts';
import type { RestRoute } from '../define-service.ts';
import { type Permission, requirePermission } from '../permissions.ts';

declare module 'moleculer' {
  interface ActionSchema {
    permissions?: Permission;
    rest?: RestRoute;
  }
}

/** Enforces the `permissions` of each action where it runs. An action that declares none does not start. */
export const permissionsMiddleware: Middleware = {
  name: 'permissions',
  localAction(next, action) {
    const { name = '', permissions } = action;
    if (name.startsWith('$node.') || action.visibility === 'private') return next;
    if (permissions === undefined) {
      throw new Errors.ServiceSchemaError(`The action '${name}' declares no permissions.`, {});
    }
    if (permissions === 'internal' && action.rest) {
      throw new Errors.ServiceSchemaError(`The action '${name}' is internal and must have no route.`, {});
    }
    return async function permitted(this: Service, ctx: Context<unknown, Meta>) {
      requirePermission(permissions, ctx.meta.user);
      return next.call(this, ctx) as unknown;
    };
  },
};
