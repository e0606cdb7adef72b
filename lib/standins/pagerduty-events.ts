/**
 * What PagerDuty answers to `POST /v2/enqueue` (Events API v2), and the incidents that come of it.
 *
 * Sources: https://developer.pagerduty.com/docs/events-api-v2-overview (statuses, limits) and
 * https://developer.pagerduty.com/docs/send-alert-event (fields, what each action does to an open or resolved alert);
 * `Invalid routing key` with 400 as clients report it.
 */
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import type { Protocol, ProviderReply } from './protocol.ts';

/** The one integration key that the simulated PagerDuty knows. */
export interface PagerDutyAccount {
  routingKey: string;
}

/** An alert as PagerDuty would show it. A trigger after a resolve makes a new one in its place. */
export interface PagerDutyIncident {
  dedupKey: string;
  state: 'triggered' | 'acknowledged' | 'resolved';
  summary: string;
  source: string;
  severity: string;
  details: Record<string, unknown>;
  links: { href: string; text?: string | undefined }[];
  /** How many trigger events went into it. */
  triggers: number;
}

/** PagerDuty's protocol, and its incidents, oldest first. */
export interface PagerDutyEvents extends Protocol {
  incidents(): PagerDutyIncident[];
}

const event = z.object({
  routing_key: z.string().length(32, "Length of 'routing_key' is incorrect (should be 32 characters)"),
  event_action: z.enum(['trigger', 'acknowledge', 'resolve']),
  dedup_key: z.string().min(1).max(255).optional(),
  payload: z
    .object({
      summary: z.string().min(1).max(1024),
      source: z.string().min(1),
      severity: z.enum(['critical', 'error', 'warning', 'info']),
      timestamp: z.iso.datetime({ offset: true }).optional(),
      custom_details: z.record(z.string(), z.unknown()).optional(),
    })
    .optional(),
  links: z.array(z.object({ href: z.url(), text: z.string().optional() })).optional(),
});
type Event = z.output<typeof event>;

/** The Events API for one integration key. Keeps the newest `maxIncidents`. */
export function pagerDutyEvents({ routingKey }: PagerDutyAccount, maxIncidents: number): PagerDutyEvents {
  const incidents = new Map<string, PagerDutyIncident>();

  /** The incident that the event belongs to; undefined when there is none for it, and the event has no effect. */
  function apply({ event_action, payload, links }: Event, dedupKey: string): PagerDutyIncident | undefined {
    const known = incidents.get(dedupKey);
    const open = known && known.state !== 'resolved' ? known : undefined;
    if (event_action !== 'trigger') {
      if (open) open.state = event_action === 'resolve' ? 'resolved' : 'acknowledged';
      return open;
    }
    if (open) {
      open.triggers += 1;
      return open;
    }
    const made: PagerDutyIncident = {
      dedupKey,
      state: 'triggered',
      summary: payload?.summary ?? '',
      source: payload?.source ?? '',
      severity: payload?.severity ?? '',
      details: payload?.custom_details ?? {},
      links: links ?? [],
      triggers: 1,
    };
    incidents.delete(dedupKey);
    incidents.set(dedupKey, made);
    const [oldest] = incidents.keys();
    if (incidents.size > maxIncidents && oldest !== undefined) incidents.delete(oldest);
    return made;
  }

  return {
    name: 'pagerduty',
    serves: (path) => path.startsWith('/v2/enqueue'),
    incidents: () => [...incidents.values()],
    answer({ method, path, body }, rejectWith) {
      if (path !== '/v2/enqueue' || method !== 'POST') return failure(404, 'not found', 'Not found');
      const sent = readEvent(body);
      if ('errors' in sent) return invalid(sent.errors);
      if (sent.routing_key !== routingKey) return invalid(['Invalid routing key']);
      if (rejectWith !== undefined)
        return failure(Number(rejectWith), 'rejected', `Rejected with ${rejectWith}`);

      const dedupKey = sent.dedup_key ?? randomUUID();
      const incident = apply(sent, dedupKey);
      return {
        status: 202,
        body: { status: 'success', message: 'Event processed', dedup_key: dedupKey },
        taken: [
          {
            id: randomUUID(),
            channel: 'pager',
            to: dedupKey,
            template: sent.event_action,
            text: incident?.summary ?? '',
          },
        ],
      };
    },
    unreadable: () => failure(413, 'payload too large', 'The payload is over 512 KB'),
    tooMany: () => failure(429, 'throttle exceeded', 'Requests for this service are arriving too quickly'),
    broken: () => failure(500, 'internal error', 'An internal error occurred'),
  };
}

function readEvent(body: string): Event | { errors: string[] } {
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch {
    return { errors: ['JSON is not valid'] };
  }
  const { data, error } = event.safeParse(json);
  if (!data) return { errors: error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`) };
  if (data.event_action === 'trigger' && !data.payload) return { errors: ["'payload' is missing or blank"] };
  if (data.event_action !== 'trigger' && !data.dedup_key)
    return { errors: ["'dedup_key' is missing or blank"] };
  return data;
}

function invalid(errors: string[]): ProviderReply {
  return { status: 400, body: { status: 'invalid event', message: 'Event object is invalid', errors } };
}

function failure(status: number, name: string, message: string): ProviderReply {
  return { status, body: { status: name, message } };
}
