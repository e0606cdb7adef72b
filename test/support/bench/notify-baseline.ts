/**
 * What notifications would be with a plain Bull queue: a job each, eight workers, one send at a time each, Bull's own attempts.
 * A worker for benchmarks, in a process of its own: `node notify-baseline.ts REDIS_SOCKET SIMULATOR_URL`.
 */
import { loadConfig } from '../../../lib/config.ts';
import { createMessageProviders, type MessageProviders } from '../../../lib/providers/index.ts';
import type { Channel, MessageProvider } from '../../../lib/providers/provider.ts';
import { render } from '../../../lib/templates/index.ts';
import { bullOn } from './sos-baseline.ts';

export const notifyBaselineQueue = 'baseline-notify';

/** What the queue carries: all that a sender needs, so that nothing has to be looked up. */
export interface BaselineMessage {
  channel: Channel;
  to: string;
  template: string;
  data: Record<string, string>;
}

/** Three attempts, with waits between them; a sign-in code goes before everything else. */
export const baselineJob = (isOtp: boolean) => ({
  attempts: 3,
  backoff: { type: 'exponential', delay: 1000 },
  ...(isOtp ? { priority: 1 } : {}),
});

const workers = 8;
const timeoutMs = 5000;

/** One send; each attempt goes to the channel's next provider. */
async function send(
  providers: MessageProviders,
  { channel, to, template, data }: BaselineMessage,
  attempt: number,
): Promise<void> {
  const hand = async <M>(list: readonly MessageProvider<M>[], message: M) => {
    await list[attempt % list.length]?.send(message, { timeoutMs });
  };
  const asked = { template, language: 'en', data } as const;
  switch (channel) {
    case 'sms':
      return hand(providers.sms, { to, ...render({ ...asked, channel }) });
    case 'whatsapp':
      return hand(providers.whatsapp, { to, template: render({ ...asked, channel }) });
    case 'email':
      return hand(providers.email, { to, notificationId: to, ...render({ ...asked, channel }) });
    case 'push': {
      const shown = render({ ...asked, channel });
      return hand(providers.push, { ...shown, token: to, priority: 'normal', ttlMs: 3_600_000 });
    }
  }
}

async function work(socketPath: string, simulatorUrl: string): Promise<void> {
  const keys = ['TWILIO', 'MSG91', 'WHATSAPP', 'SENDGRID', 'SES', 'FCM'].map((name) => `${name}_BASE_URL`);
  const config = loadConfig({
    ...process.env,
    ...Object.fromEntries(keys.map((key) => [key, simulatorUrl])),
  });
  const providers = createMessageProviders(config);
  const { queue } = bullOn<BaselineMessage>(notifyBaselineQueue, socketPath);
  await queue.isReady();
  process.stdout.write('ready\n');
  await queue.process(workers, ({ data, attemptsMade }) => send(providers, data, attemptsMade));
}

if (process.argv[1] === import.meta.filename) {
  const [socketPath = '', simulatorUrl = ''] = process.argv.slice(2);
  await work(socketPath, simulatorUrl);
}
