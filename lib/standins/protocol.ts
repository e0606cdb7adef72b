import type { IncomingHttpHeaders } from 'node:http';
import type { ProviderName } from './failure-scripts.ts';
import type { Fate, OutboxMessage } from './outbox.ts';

/** The parts of an HTTP request that a provider's answer depends on. `body` is as it came. */
export interface ProviderRequest {
  method: string;
  path: string;
  query: URLSearchParams;
  headers: IncomingHttpHeaders;
  body: string;
  now: Date;
}

/** Something that a provider took; `callbackUrl` is where the sender wants to hear of it, where the protocol carries that. */
export interface Taken extends Omit<OutboxMessage, 'provider' | 'at' | 'state'> {
  callbackUrl?: string;
  /** What the sender wants back in each event of an email or a WhatsApp message. */
  notificationId?: string;
}

/** An answer, sent as JSON unless it is empty (undefined); `taken` is what goes into the outbox. */
export interface ProviderReply {
  status: number;
  headers?: Record<string, string>;
  body: unknown;
  taken?: Taken[];
}

/** One thing that became of a message. `code` is the provider's own, of a failure. */
export interface Receipt {
  message: Taken;
  state: Fate;
  code?: number | string | undefined;
  at: Date;
}

/** A request to our webhook. `path` is below the callbacks' base; `url` is the whole address. */
export type Callback = ({ path: string } | { url: string }) & {
  headers: Record<string, string>;
  body: string;
};

/** A message from a person to our number. */
export interface Inbound {
  from: string;
  text: string;
  at: Date;
}

/** How one provider speaks. Each in a file of its own, with the sources of its formats. */
export interface Protocol {
  readonly name: ProviderName;
  /** Whether a request to this path is for this provider. */
  serves(path: string): boolean;
  /** Answers one request. `rejectWith` refuses an otherwise valid one with that code of the provider's. */
  answer(request: ProviderRequest, rejectWith?: number | string): ProviderReply;
  /** Its answer to a body that is over the limit. */
  unreadable(): ProviderReply;
  /** Its answer to too many requests, without `Retry-After`. */
  tooMany(): ProviderReply;
  /** Its answer when it fails itself. */
  broken(): ProviderReply;
  /** Its error that comes with status 200, if it has such. */
  errorInOk?(): ProviderReply;
  /** What becomes of a message to an address of the provider's own for tests; undefined for every other. */
  fates?(message: Taken): Fate[] | undefined;
  /** Notes what became of a message, for who asks. */
  moved?(receipt: Receipt): void;
  /** How it tells us of that; undefined when it does not. `base` is where our webhooks are, without a slash at the end. */
  callback?(receipt: Receipt, base: string | undefined): Callback | undefined;
  /** How it hands us a message from a person; SNS a confirmation of our subscription instead. */
  inbound?(message: Inbound, base: string): Callback;
}
