import type { ProviderName } from './failure-scripts.ts';
import type { OutboxMessage } from './outbox.ts';

/** The parts of an HTTP request that a provider's answer depends on. `body` is as it came. */
export interface ProviderRequest {
  method: string;
  path: string;
  query: URLSearchParams;
  authorization: string | undefined;
  authkey: string | undefined;
  contentType: string | undefined;
  body: string;
  now: Date;
}

/** An answer to be sent as JSON; `taken` is what goes into the outbox. */
export interface ProviderReply {
  status: number;
  headers?: Record<string, string>;
  body: unknown;
  taken?: Omit<OutboxMessage, 'provider' | 'at'>[];
}

/** How one provider speaks. Each in a file of its own, with the sources of its formats. */
export interface Protocol {
  readonly name: ProviderName;
  /** Whether a request to this path is for this provider. */
  serves(path: string): boolean;
  /** Answers one request. `rejectWith` refuses an otherwise valid one with that code of the provider's. */
  answer(request: ProviderRequest, rejectWith?: number): ProviderReply;
  /** Its answer to a body that is over the limit. */
  unreadable(): ProviderReply;
  /** Its answer to too many requests, without `Retry-After`. */
  tooMany(): ProviderReply;
  /** Its answer when it fails itself. */
  broken(): ProviderReply;
  /** Its error that comes with status 200, if it has such. */
  errorInOk?(): ProviderReply;
}
