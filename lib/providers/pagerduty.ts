import { redact } from '../redact.ts';
import { currentOf, type Secret } from '../secret.ts';
import type { CallOptions } from './deadline.ts';
import { createHttpClient, isPermanentStatus, postJson, trimSlashes } from './http.ts';
import type { Pager } from './pager.ts';
import { ProviderError } from './provider-error.ts';

/** `routingKey` is the integration key of a PagerDuty service (32 characters). */
export interface PagerDutyOptions {
  routingKey: Secret<string> | string;
  /** Replaces `https://events.pagerduty.com`, for a simulator or an egress proxy. */
  baseUrl?: string;
}

const PROVIDER = 'pagerduty';
const BASE_URL = 'https://events.pagerduty.com';
const MAX_SUMMARY_CHARACTERS = 1024;

/**
 * A pager over PagerDuty's Events API v2. An incident is critical; events for one dedup key meet in one incident.
 *
 * Sources: https://developer.pagerduty.com/docs/events-api-v2-overview (answers, retries, limits) and
 * https://developer.pagerduty.com/docs/send-alert-event (fields)
 */
export function createPagerDuty({ routingKey, baseUrl = BASE_URL }: PagerDutyOptions): Pager {
  const url = `${trimSlashes(baseUrl)}/v2/enqueue`;
  const client = createHttpClient();

  async function enqueue(event: Record<string, unknown>, options: CallOptions): Promise<void> {
    const { status } = await postJson(
      PROVIDER,
      client,
      { url, body: { routing_key: currentOf(routingKey), ...event } },
      options,
    );
    if (status === 202) return;
    // Anything but 202 that is no refusal either (a proxy's 200) has not reached PagerDuty, and may the next time
    throw new ProviderError({
      provider: PROVIDER,
      code: `HTTP_${status}`,
      permanent: isPermanentStatus(status),
      status,
    });
  }

  return {
    name: PROVIDER,
    trigger: ({ dedupKey, summary, source, at, details, links }, options) =>
      enqueue(
        {
          event_action: 'trigger',
          dedup_key: dedupKey,
          payload: {
            summary: cut(String(redact(summary))),
            source,
            severity: 'critical',
            timestamp: new Date(at).toISOString(),
            ...(details ? { custom_details: redact(details) } : {}),
          },
          ...(links ? { links } : {}),
        },
        options,
      ),
    acknowledge: (dedupKey, options) =>
      enqueue({ event_action: 'acknowledge', dedup_key: dedupKey }, options),
    resolve: (dedupKey, options) => enqueue({ event_action: 'resolve', dedup_key: dedupKey }, options),
  };
}

function cut(text: string): string {
  return text.length <= MAX_SUMMARY_CHARACTERS ? text : `${text.slice(0, MAX_SUMMARY_CHARACTERS - 1)}…`;
}
