/** Every action and event that services offer each other, by service. */
import type { z } from 'zod';
import { accounts } from './accounts.ts';
import { admin } from './admin.ts';
import type { ErrorCode } from './errors.ts';
import { location, locationHistory } from './location.ts';
import { notify, notifyLog } from './notify.ts';
import { safety } from './safety.ts';
import { sos, sosWorker } from './sos.ts';
import { trips } from './trips.ts';
import { webhooks } from './webhooks.ts';

export const contracts = {
  accounts,
  trips,
  location,
  'location-history': locationHistory,
  notify,
  'notify-log': notifyLog,
  safety,
  sos,
  'sos-worker': sosWorker,
  'sos-sender': none(),
  admin,
  api: webhooks,
  gateway: none(),
  monitor: none(),
};

function none() {
  return { actions: {}, events: {} };
}

export type Contracts = typeof contracts;
export type ServiceName = keyof Contracts;

export interface ActionContract {
  params: z.ZodType;
  result: z.ZodType;
  /** A sentence for the API's description. */
  summary?: string;
  /** See `mayRefuse`. */
  errors?: ErrorCode[];
  /** Of an action that may run twice: when its node has died, or says nothing for so long (ms), another one is asked. */
  repeatAfterMs?: number;
}

/** `{ 'trips.start': {params, result}, … }` */
type ActionMap = {
  [S in ServiceName as `${S}.${keyof Contracts[S]['actions'] & string}`]: never;
};
export type ActionName = keyof ActionMap;

type ContractOf<A extends ActionName> = A extends `${infer S extends ServiceName}.${infer N}`
  ? N extends keyof Contracts[S]['actions']
    ? Contracts[S]['actions'][N]
    : never
  : never;

/** What a caller passes. */
export type ActionInput<A extends ActionName> =
  ContractOf<A> extends { params: infer P extends z.ZodType } ? z.input<P> : never;
/** What a handler sees: parsed, defaults filled in. */
export type ActionParams<A extends ActionName> =
  ContractOf<A> extends { params: infer P extends z.ZodType } ? z.output<P> : never;
export type ActionResult<A extends ActionName> =
  ContractOf<A> extends { result: infer R extends z.ZodType } ? z.output<R> : never;

const events = {
  ...accounts.events,
  ...trips.events,
  ...location.events,
  ...notify.events,
  ...safety.events,
  ...sos.events,
};
export type EventName = keyof typeof events;
export type EventPayload<E extends EventName> = z.output<(typeof events)[E]>;

const actions = new Map<string, ActionContract>(
  Object.entries(contracts).flatMap(([service, contract]) =>
    Object.entries<ActionContract>(contract.actions).map(
      ([name, action]) => [`${service}.${name}`, action] as const,
    ),
  ),
);

/** The contract of an action by its full name, `trips.start`. */
export const actionContract = (name: string): ActionContract | undefined => actions.get(name);

const eventSchemas = new Map<string, z.ZodType>(Object.entries(events));

/** The payload schema of an event, `trip.ended`. */
export const eventContract = (name: string): z.ZodType | undefined => eventSchemas.get(name);
