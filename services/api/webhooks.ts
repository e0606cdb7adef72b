/** The doors that providers call: who speaks is checked by lib/webhooks, what they tell goes to notify. */
import type { z } from 'zod';
import type { webhooks } from '../../contracts/webhooks.ts';
import type { Config } from '../../lib/config.ts';
import type { Calls, Log, RequestContext } from '../../lib/context.ts';
import type { RestRoute } from '../../lib/define-service.ts';
import { AppError, publicError } from '../../lib/errors.ts';
import { type Callback, type Told, told } from '../../lib/webhooks/callback.ts';
import { msg91SecretHeader, readMsg91 } from '../../lib/webhooks/msg91.ts';
import { readSendGrid, sendGridSignatureHeader } from '../../lib/webhooks/sendgrid.ts';
import { readSes } from '../../lib/webhooks/ses.ts';
import { confirmationUrl, type SnsClient, verifySns } from '../../lib/webhooks/sns.ts';
import { readTwilioInbound, readTwilioStatus, twilioSignatureHeader } from '../../lib/webhooks/twilio.ts';
import { readWhatsApp, whatsAppChallenge, whatsAppSignatureHeader } from '../../lib/webhooks/whatsapp.ts';

/** What is done with a callback needs of the service that has it. */
interface Door {
  config: Config;
  logger: Log;
  broker: { metrics: { increment(name: string, labels: Record<string, string>): void } };
  sns: SnsClient | undefined;
}

type Context = RequestContext<z.output<typeof webhooks.actions.ses.params>> & Calls;
type Name = Exclude<keyof typeof webhooks.actions, 'whatsappHandshake'>;

const form = 'application/x-www-form-urlencoded' as const;

/** Limits are what each may send at most: SendGrid 768 KB, Meta 3 MB, SNS 256 KB, which JSON makes longer. */
const routes: Record<Name, RestRoute> = {
  twilioStatus: {
    method: 'POST',
    path: '/webhooks/twilio/messages',
    callback: { signature: twilioSignatureHeader, contentType: form, limitKb: 64 },
  },
  twilioInbound: {
    method: 'POST',
    path: '/webhooks/twilio/inbound',
    callback: { signature: twilioSignatureHeader, contentType: form, limitKb: 64 },
  },
  whatsapp: {
    method: 'POST',
    path: '/webhooks/whatsapp',
    callback: { signature: whatsAppSignatureHeader, limitKb: 3072 },
  },
  sendgrid: {
    method: 'POST',
    path: '/webhooks/sendgrid',
    callback: { signature: sendGridSignatureHeader, limitKb: 1024 },
  },
  msg91: {
    method: 'POST',
    path: '/webhooks/msg91',
    callback: { signature: msg91SecretHeader, limitKb: 1024 },
  },
  ses: { method: 'POST', path: '/webhooks/ses', callback: { limitKb: 1024 } },
};

const sandboxOrigin = ({ sandboxProviders, providersSandboxUrl }: Config): string | undefined =>
  sandboxProviders && providersSandboxUrl ? new URL(providersSandboxUrl).origin : undefined;

async function readFromSns({ config, sns, logger }: Door, callback: Callback, now: number): Promise<Told> {
  if (!sns) throw new AppError('UNAVAILABLE', { retryAfterS: 2 });
  const sandbox = sandboxOrigin(config);
  const message = await verifySns(callback, {
    topicArns: config.sesTopicArns,
    sandboxOrigin: sandbox,
    keyAt: (url) => sns.keyAt(url),
    now,
  });
  if (message.Type === 'Notification') return readSes(message, now);
  if (message.Type === 'SubscriptionConfirmation') {
    await sns.confirm(confirmationUrl(message, sandbox));
    logger.info('The subscription to a topic of SES is confirmed', { topic: message.TopicArn });
  } else {
    logger.error('The subscription to a topic of SES has ended: nobody learns of bounces any more', {
      topic: message.TopicArn,
    });
  }
  return told();
}

/** What each callback tells; rejects where it comes from somebody else. */
const readers: Record<Name, (door: Door, callback: Callback, now: number) => Told | Promise<Told>> = {
  twilioStatus: ({ config }, callback, now) =>
    readTwilioStatus(callback, { authToken: config.twilioAuthToken.current(), now }),
  twilioInbound: ({ config }, callback) =>
    readTwilioInbound(callback, { authToken: config.twilioAuthToken.current() }),
  whatsapp: ({ config }, callback, now) =>
    readWhatsApp(callback, { appSecret: config.whatsappAppSecret.current(), now }),
  sendgrid: ({ config }, callback, now) =>
    readSendGrid(callback, { publicKey: config.sendgridWebhookPublicKey.current(), now }),
  msg91: ({ config }, callback, now) =>
    readMsg91(callback, { secret: config.msg91WebhookSecret.current(), now }),
  ses: readFromSns,
};

/** What notify takes at once. */
const mostReceipts = 1000;

async function handOn(ctx: Context, { optOuts, suppressions, receipts }: Told): Promise<void> {
  for (const optOut of optOuts) await ctx.call('notify.optOut', optOut);
  for (const suppression of suppressions) await ctx.call('notify.suppress', suppression);
  for (let from = 0; from < receipts.length; from += mostReceipts)
    await ctx.call('notify.receipts', { receipts: receipts.slice(from, from + mostReceipts) });
}

export const webhookMetric = {
  type: 'counter' as const,
  name: 'webhooks.total',
  labelNames: ['webhook', 'outcome'],
  description: 'Callbacks of providers by what became of them',
};

const refusals = {
  WEBHOOK_FORGED: 'forged',
  WEBHOOK_TOO_OLD: 'too-old',
  WEBHOOK_UNREADABLE: 'unreadable',
} as const;
const outcomeOf = (error: unknown): string => {
  const { code } = publicError(error);
  return code in refusals ? refusals[code as keyof typeof refusals] : 'not-taken';
};

/** The action of a callback: read, then handed on, then answered. What cannot be handed on is to be repeated. */
export function callbackAction(name: Name) {
  return {
    permissions: 'public' as const,
    rest: routes[name],
    async handler(this: Door, ctx: Context): Promise<null> {
      const count = (outcome: string) =>
        this.broker.metrics.increment(webhookMetric.name, { webhook: name, outcome });
      let read: Told;
      try {
        read = await readers[name](this, ctx.params, Date.now());
      } catch (error) {
        count(outcomeOf(error));
        throw error;
      }
      try {
        await handOn(ctx, read);
      } catch (error) {
        count('not-taken');
        this.logger.warn('What a provider told could not be handed on', { webhook: name, error });
        throw new AppError('UNAVAILABLE', { retryAfterS: 5 });
      }
      count('taken');
      return null;
    },
  };
}

/** Meta's question whether this is our webhook. */
export const whatsappHandshake = {
  permissions: 'public' as const,
  rest: {
    method: 'GET',
    path: '/webhooks/whatsapp',
    callback: { limitKb: 1 },
    plainText: true,
  } satisfies RestRoute,
  async handler(this: Door, ctx: Context): Promise<string> {
    return whatsAppChallenge(ctx.params.url, this.config.whatsappVerifyToken.current());
  },
};
