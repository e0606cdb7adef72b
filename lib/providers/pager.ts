import type { CallOptions } from './deadline.ts';

/** Something that the person on call has to see to. */
export interface Incident {
  /** What it is known by from then on; up to 255 characters. */
  dedupKey: string;
  /** One line; phone numbers are taken out, and what is over 1,024 characters cut. */
  summary: string;
  /** Where it comes from: a host, a service. */
  source: string;
  /** When it began, ms. */
  at: number;
  /** Phone numbers and values under secret keys are taken out. */
  details?: Readonly<Record<string, unknown>>;
  links?: readonly { href: string; text: string }[];
}

/** What every paging provider looks like to its callers. All three may be repeated; each rejects with a ProviderError. */
export interface Pager {
  readonly name: string;
  /** Opens the incident; resolves when the provider has taken it, not when somebody was reached. */
  trigger(incident: Incident, options: CallOptions): Promise<void>;
  /** Says that somebody sees to it. Has no effect on an incident that is not open. */
  acknowledge(dedupKey: string, options: CallOptions): Promise<void>;
  /** Says that it is over. Has no effect on an incident that is not open. */
  resolve(dedupKey: string, options: CallOptions): Promise<void>;
}
