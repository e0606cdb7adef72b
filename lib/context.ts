import { Context } from 'moleculer';
import type { ActionInput, ActionName, ActionResult, EventName, EventPayload } from '../contracts/index.ts';
import type { Caller } from './permissions.ts';

/** Travels with a request from service to service. */
export interface Meta {
  user?: Caller | null;
  /** The client's address, as the door saw it. */
  ip?: string;
}

export interface CallOptions {
  timeout?: number;
  retries?: number;
  meta?: Meta;
  /** The node that is asked, and no other. */
  nodeID?: string;
}

export interface Log {
  error(text: string, fields?: object): void;
  warn(text: string, fields?: object): void;
  info(text: string, fields?: object): void;
  debug(text: string, fields?: object): void;
}

/** Calls and events between services: names, parameters and results as contracts/ has them. */
export interface Calls {
  call<A extends ActionName>(
    action: A,
    params: ActionInput<A>,
    options?: CallOptions,
  ): Promise<ActionResult<A>>;
  /** One instance of each service that listens hears it: a hint that may be lost. */
  emit<E extends EventName>(event: E, payload: EventPayload<E>): Promise<void>;
}

/** What a handler gets. */
export interface RequestContext<Params> extends Calls {
  params: Params;
  meta: Meta;
  requestID: string;
  /** Carries the ids of request and user. */
  logger: Log;
}

/** Moleculer's context with a logger bound to the request. */
export class AppContext extends Context<unknown, Meta> {
  get logger(): Log {
    const target = this.service?.logger ?? this.broker.logger;
    const bound =
      (level: keyof Log) =>
      (text: string, fields: object = {}) =>
        target[level](text, { ...fields, requestId: this.requestID, userId: this.meta.user?.id });
    return { error: bound('error'), warn: bound('warn'), info: bound('info'), debug: bound('debug') };
  }
}
