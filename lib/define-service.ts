import type { Service, ServiceBroker, ServiceSchema } from 'moleculer';
import type {
  ActionName,
  ActionParams,
  ActionResult,
  Contracts,
  EventName,
  EventPayload,
  ServiceName,
} from '../contracts/index.ts';
import { brokerConfig } from './broker-config.ts';
import type { Config } from './config.ts';
import type { Calls, Log, RequestContext } from './context.ts';
import type { Permission } from './permissions.ts';

/** A route of an action. `path` is under /api/v1; `status` is that of success, 200 if left out (204 without a result). */
export interface RestRoute {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  path: `/${string}`;
  status?: 201 | 202;
  /** For 201: where the new thing is; `:name` stands for that field of the result. */
  location?: `/${string}`;
  /** Counts against no rate limit. */
  unlimited?: boolean;
  /**
   * Whom the door lets in besides live sessions. `unverified`: also who cannot be looked up right now. `ever`: also whose
   * session has ended. For SOS alone.
   */
  admits?: 'unverified' | 'ever';
  /** Takes any body as it comes: nothing that a client sends is a reason to refuse. For SOS alone. */
  neverRefuses?: boolean;
  /**
   * A provider's callback: there is no session, and the action gets `{url, headers, body}` as they came, since it knows who speaks by
   * a signature over them. Its limit by address is one of its own. `signature`: the header that it is in, if it is in one.
   */
  callback?: { signature?: string; contentType?: 'application/x-www-form-urlencoded'; limitKb: number };
  /** Success is answered with the result as plain text. */
  plainText?: boolean;
}

interface ActionDefinition<This, A extends ActionName> {
  permissions: Permission;
  rest?: RestRoute;
  /** ms */
  timeout?: number;
  bulkhead?: { enabled: boolean; concurrency?: number; maxQueueSize?: number };
  circuitBreaker?: { enabled: boolean };
  handler(this: This, ctx: RequestContext<ActionParams<A>>): Promise<ActionResult<A>>;
}

interface EventDefinition<This, E extends EventName> {
  /** Every process that runs the service hears it, not only one of them. */
  everyNode?: true;
  handler(this: This, ctx: RequestContext<EventPayload<E>>): void | Promise<void>;
}

/**
 * A mixin that puts `Fields` on the service: acquired when it starts, released when it stops. The phantom
 * property only carries the type.
 */
export interface Mixin<Fields extends object = object> {
  mixins?: readonly object[];
  actions?: object;
  merged?(schema: ServiceSchema): void;
  created?(): void;
  started?(): Promise<void>;
  stopped?(): void | Promise<void>;
  readonly fields?: Fields;
}

type Intersection<U> = (U extends unknown ? (u: U) => void : never) extends (i: infer I) => void ? I : never;
type FieldsOf<M extends readonly Mixin[]> = Intersection<
  { [K in keyof M]: M[K] extends { readonly fields?: infer F } ? NonNullable<F> : never }[number]
>;

/** What every service has. */
export interface ServiceBase extends Calls {
  name: string;
  config: Config;
  broker: ServiceBroker;
  logger: Log;
}

interface Definition<
  N extends ServiceName,
  M extends readonly Mixin[],
  State extends object,
  Methods extends object,
  This,
> {
  name: N;
  mixins?: M;
  /** moleculer's settings, made from the configuration; secret ones belong in `$secureSettings`. */
  settings?: (config: Config) => object;
  /** Fields of the service's own. */
  state?: () => State;
  methods?: Methods & ThisType<This>;
  actions: {
    [K in keyof Contracts[N]['actions'] & string]: ActionDefinition<This, `${N}.${K}` & ActionName>;
  };
  events?: { [E in EventName]?: EventDefinition<This, E> };
  started?: (this: This) => Promise<void>;
  stopped?: (this: This) => Promise<void>;
}

/**
 * A service whose actions are exactly those of its contract, with parameters and results of their types, whose
 * calls and events are typed, and whose `this` has what its mixins and its state bring.
 */
export function defineService<
  N extends ServiceName,
  const M extends readonly Mixin[] = [],
  State extends object = object,
  Methods extends object = object,
>(definition: Definition<N, M, State, Methods, ServiceBase & FieldsOf<M> & State & Methods>): ServiceSchema {
  const { settings, state, events = {}, mixins, ...rest } = definition;
  const nodeGroup = (service: Service) => `${definition.name}@${service.broker.nodeID}`;
  const schema = {
    ...rest,
    mixins: [...(mixins ?? [])],
    events,
    // Runs in the service before it is made: the first moment at which the broker's configuration is at hand
    merged(this: Service, merged: ServiceSchema) {
      const config = brokerConfig(this.broker);
      const { broker } = this;
      Object.assign(
        this,
        { config, call: broker.call.bind(broker), emit: broker.emit.bind(broker) },
        state?.(),
      );
      merged.settings = Object.assign(merged.settings ?? {}, { rest: '/' }, settings?.(config));
      for (const [name, event] of Object.entries<EventDefinition<never, EventName> | undefined>(events)) {
        if (event?.everyNode) Object.assign(merged.events?.[name] ?? {}, { group: nodeGroup(this) });
      }
    },
  };
  // Moleculer's own types know neither contracts nor mixin fields: this is the one place that crosses over
  return schema as unknown as ServiceSchema;
}
