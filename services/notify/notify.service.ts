/**
 * Sends messages to people. Owns the queue; a message is safe once it is in Redis. Never logs what a message says or
 * to whom it goes.
 */
import { randomUUID } from 'node:crypto';
import type { z } from 'zod';
import type { notify } from '../../contracts/notify.ts';
import { defineService } from '../../lib/define-service.ts';
import { AppError } from '../../lib/errors.ts';
import { ProviderError } from '../../lib/providers/provider-error.ts';
import type { SmsProvider } from '../../lib/providers/sms.ts';
import { createTwilioSms } from '../../lib/providers/twilio-sms.ts';
import { type Sealer, sealerOf } from '../../lib/sealed.ts';
import { queue } from '../../mixins/queue.ts';
import { renderText } from './templates.ts';

type Request = z.output<typeof notify.actions.send.params>;

/** A message as it waits in Redis: to whom and what is sealed. */
interface Message {
  template: Request['template'];
  /** JSON of `{to, data}`, sealed; empty once the job has ended. */
  sealed: string;
  expiresAt: number;
}

interface Sender {
  sms?: SmsProvider;
  sealer?: Sealer;
  broker: { metrics: { increment(name: string, labels: Record<string, string>): void } };
}

const withoutSecrets = (message: Message): Message => ({ ...message, sealed: '' });

/** Attempts of one message: 1, 2, 4 … s apart, with jitter. */
const attempts = 4;
const sendTimeoutMs = 5000;

export default defineService({
  name: 'notify',
  mixins: [
    queue<Message, 'messages'>({
      name: 'notify',
      as: 'messages',
      concurrency: 50,
      async process(message, job) {
        const { sms, sealer, broker } = this as typeof this & Sender;
        const count = (outcome: string) => broker.metrics.increment('notify.sms.total', { outcome });
        if (!sms || !sealer) throw new Error('The SMS provider is not ready');
        const expired = Date.now() > message.expiresAt;
        if (!expired) {
          const { to, data } = JSON.parse(sealer.open(message.sealed)) as Pick<Request, 'to' | 'data'>;
          const body = renderText(message.template, data);
          await sms.send({ to, body }, { timeoutMs: sendTimeoutMs }).catch(async (error: unknown) => {
            if (error instanceof ProviderError && error.permanent) await job.discard();
            throw error;
          });
        }
        count(expired ? 'expired' : 'sent');
        // The finished job stays a while so that its key is not sent twice; code and number do not
        await job.update(withoutSecrets(message));
      },
      async onExhausted(job, error) {
        this.broker.metrics.increment('notify.sms.total', { outcome: 'failed' });
        this.logger.error('A message could not be delivered', {
          template: job.data.template,
          jobId: job.id,
          error,
        });
        await job.update(withoutSecrets(job.data));
      },
    }),
  ],
  state: () => ({
    sms: undefined as SmsProvider | undefined,
    sealer: undefined as Sealer | undefined,
  }),

  actions: {
    send: {
      permissions: 'internal',
      async handler(ctx) {
        const { idempotencyKey, expiresInMs, template, to, data } = ctx.params;
        if (!this.sealer) throw new AppError('UNAVAILABLE');
        renderText(template, data);
        const jobId = idempotencyKey || randomUUID();
        await this.messages.add(
          {
            template,
            sealed: this.sealer.seal(JSON.stringify({ to, data })),
            expiresAt: Date.now() + expiresInMs,
          },
          { jobId, attempts, backoff: { type: 'jittered' } },
        );
        return { notificationId: jobId };
      },
    },
  },

  async started() {
    const { twilioAccountSid, twilioAuthToken, twilioFrom, twilioBaseUrl } = this.config;
    this.broker.metrics.register({
      type: 'counter',
      name: 'notify.sms.total',
      labelNames: ['outcome'],
      description: 'SMS by outcome',
    });
    this.sealer = sealerOf(this.config);
    this.sms = createTwilioSms({
      accountSid: twilioAccountSid,
      authToken: twilioAuthToken,
      from: twilioFrom,
      ...(twilioBaseUrl ? { baseUrl: twilioBaseUrl } : {}),
    });
  },
});
