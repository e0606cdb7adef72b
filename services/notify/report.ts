/** What is told of notifications: metrics and the log. Never what they say or to whom they go. */
import type { MetricRegistry } from 'moleculer';
import type { Log } from '../../lib/context.ts';
import type { DeliveryRates } from './delivery-rate.ts';
import { type Attempt, furthest, isEnded, type Notification, type Progress } from './notification.ts';

const counters: [name: string, labelNames: string[], description: string][] = [
  ['notify.sent.total', ['channel', 'provider'], 'Messages that a provider has taken'],
  ['notify.delivered.total', ['channel', 'provider'], 'Messages that have arrived, as far as anybody tells'],
  ['notify.failed.total', ['channel', 'provider', 'kind'], 'Attempts that failed, permanent or transient'],
  ['notify.ended.total', ['status', 'reason', 'lane'], 'Notifications that have ended, and how'],
  ['notify.resent.total', ['channel'], 'Attempts after one of which nobody knows whether it was taken'],
  ['notify.swept.total', ['lane'], 'Notifications that came up because their time had come'],
  ['notify.receipts.total', ['provider', 'found'], "Providers' receipts, and whether we knew the message"],
];
const histograms: [name: string, labelNames: string[], description: string][] = [
  ['notify.delivery.time', ['channel'], 'From request until it has arrived'],
  ['notify.otp.handover.time', ['provider'], 'From the request for a sign-in code until a provider has it'],
  [
    'notify.otp.delivery.time',
    ['provider'],
    'From the request for a sign-in code until it has arrived (R4.7)',
  ],
];
const buckets = [100, 250, 500, 1000, 2000, 5000, 10_000, 20_000, 60_000, 300_000];

export function registerMetrics(metrics: MetricRegistry): void {
  for (const [name, labelNames, description] of counters)
    metrics.register({ type: 'counter', name, labelNames, description });
  for (const [name, labelNames, description] of histograms)
    metrics.register({
      type: 'histogram',
      name,
      labelNames,
      description,
      unit: 'ms',
      buckets,
      quantiles: true,
    });
  metrics.register({
    type: 'gauge',
    name: 'notify.delivery.rate',
    labelNames: ['channel', 'provider'],
    description: 'Share of messages that did not fail, lately',
  });
}

export interface ReportParts {
  metrics: MetricRegistry;
  logger: Log;
  rates: DeliveryRates;
}

const isThere = ({ state }: Attempt): boolean => state === 'delivered' || state === 'read';

/** Tells what lies between two states of a notification. */
export function report(
  parts: ReportParts,
  before: Progress,
  { id, request, progress }: Notification,
  now: number,
): void {
  const { metrics, logger, rates } = parts;
  const { lane, template, createdAt } = request;
  for (const [index, attempt] of progress.attempts.entries()) {
    const { channel, provider, state, code } = attempt;
    const earlier = before.attempts[index];
    if (earlier?.state === state) continue;
    const way = { channel, provider };
    const wasOut = earlier !== undefined && earlier.state !== 'sending' && earlier.state !== 'failed';
    if (state !== 'sending' && state !== 'failed' && !wasOut) {
      metrics.increment('notify.sent.total', way);
      if (lane === 'otp') metrics.observe('notify.otp.handover.time', now - createdAt, { provider });
      // Nobody tells of a push whether it arrived
      if (channel === 'push') rates.count(way, true);
    }
    if (isThere(attempt) && !(earlier && isThere(earlier))) {
      metrics.increment('notify.delivered.total', way);
      metrics.observe('notify.delivery.time', now - createdAt, { channel });
      if (lane === 'otp') metrics.observe('notify.otp.delivery.time', now - createdAt, { provider });
      if (channel !== 'push') rates.count(way, true);
    }
    if (state === 'failed' && furthest(earlier?.state ?? 'sending', 'failed') === 'failed') {
      const kind = attempt.permanent ? 'permanent' : 'transient';
      metrics.increment('notify.failed.total', { ...way, kind });
      // A number that does not exist is not the provider's failure
      if (kind === 'transient' || wasOut) rates.count(way, false);
      logger.warn('An attempt to deliver a notification failed', {
        notificationId: id,
        template,
        channel,
        provider,
        code,
        kind,
        attempt: index + 1,
      });
    }
  }
  if (!isEnded(progress) || progress.status === before.status) return;
  const { status, reason = status } = progress;
  metrics.increment('notify.ended.total', { status, reason, lane });
  const what = { notificationId: id, template, lane, reason, attempts: progress.attempts.length };
  if (status === 'failed') logger.error('A notification could not be delivered', what);
  if (status === 'expired') logger.warn('A notification expired before it was sent', what);
}
