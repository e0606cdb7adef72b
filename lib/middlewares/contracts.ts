import type { CallingOptions, Context, Middleware, Service, ServiceBroker } from 'moleculer';
import { Errors } from 'moleculer';
import { actionContract, eventContract } from '../../contracts/index.ts';
import { AppError, isConnectionTrouble, lostOnTheWay, neverBegan, publicError } from '../errors.ts';
import { parseOrRefuse } from '../validate.ts';

/**
 * Checks parameters, results and event payloads against contracts/, where they are handled: whoever calls,
 * from this process or over NATS, meets the same check. An action without a contract does not start.
 *
 * A result that breaks its contract is our own fault: INTERNAL for the caller, the reason in the log. Redis or the DB
 * or another service being away is UNAVAILABLE. Fields that the contract does not name are dropped, so a record's private parts cannot
 * slip out.
 */
export const contractsMiddleware: Middleware = {
  name: 'contracts',

  // Moleculer's type has the call's result where the hook answers a function
  call: sooner as unknown as NonNullable<Middleware['call']>,

  localAction(next, action) {
    const name = action.name ?? '';
    if (name.startsWith('$node.')) return next;
    if (action.visibility === 'private') {
      return async function answered(this: Service, ctx: Context) {
        return answerOf(ctx, () => next.call(this, ctx) as Promise<unknown>);
      };
    }
    const contract = actionContract(name);
    if (!contract)
      throw new Errors.ServiceSchemaError(`The action '${name}' has no contract in contracts/.`, {});
    return async function checked(this: Service, ctx: Context) {
      ctx.params = parseOrRefuse(contract.params, ctx.params ?? {});
      const answer = await answerOf(ctx, () => next.call(this, ctx) as Promise<unknown>);
      const result = contract.result.safeParse(answer ?? null);
      if (!result.success) {
        const fields = result.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.code}`);
        ctx.broker.logger.error('An action broke its own contract', { action: name, fields });
        throw new Errors.MoleculerServerError('Result breaks the contract', 500, 'RESULT_INVALID', {});
      }
      return result.data;
    };
  },

  localEvent(next, event) {
    const name = event.name ?? '';
    if (name.startsWith('$')) return next;
    const schema = eventContract(name);
    if (!schema)
      throw new Errors.ServiceSchemaError(`The event '${name}' has no contract in contracts/.`, {});
    return async function checked(this: Service, ctx: Context) {
      ctx.params = parseOrRefuse(schema, ctx.params);
      return next.call(this, ctx);
    };
  },
};

async function answerOf(ctx: Context, handle: () => Promise<unknown>): Promise<unknown> {
  try {
    return await handle();
  } catch (error) {
    // A call of this action's own did not begin, or nobody knows; the action did: as it is, its caller would send it again
    if (neverBegan(error)) throw new AppError('UNAVAILABLE', { retryAfterS: 2 });
    if (lostOnTheWay(error)) throw new AppError(publicError(error).code);
    if (!isConnectionTrouble(error)) throw error;
    ctx.broker.logger.warn('An action needs something that is away', { action: ctx.action?.name, error });
    throw new AppError('UNAVAILABLE', { retryAfterS: 2 });
  }
}

/** Gives a call no more time than after which it may be sent again. An action's own `timeout` would not be asked within a request. */
function sooner(call: ServiceBroker['call']) {
  return function callOrRepeat(
    this: ServiceBroker,
    name: string,
    params: unknown,
    options: CallingOptions = {},
  ) {
    const { repeatAfterMs } = actionContract(name) ?? {};
    if (repeatAfterMs === undefined) return call.call(this, name, params, options);
    const timeout = Math.min(options.timeout || repeatAfterMs, repeatAfterMs);
    return call.call(this, name, params, { ...options, timeout });
  };
}

/** May a call that failed so be sent again? The contract says it of actions that may run twice. */
export const mayRepeat = (error: unknown): boolean =>
  neverBegan(error) ||
  (lostOnTheWay(error) && actionContract(error.data.action)?.repeatAfterMs !== undefined);
