/**
 * Brings notifications on: looks up whom each goes to, asks routing what is next, and does it. Each attempt is claimed in the record before
 * it is made and recorded after it, so that whoever dies leaves either nothing to do again, or an attempt that somebody asks about.
 */
import type { MetricRegistry } from 'moleculer';
import type { Log } from '../../lib/context.ts';
import { errorCode } from '../../lib/error-code.ts';
import type { MessageProviders } from '../../lib/providers/index.ts';
import type { Channel, MessageProvider, MessageProviderName } from '../../lib/providers/provider.ts';
import { ProviderError } from '../../lib/providers/provider-error.ts';
import type { SmsMessage, SmsProvider } from '../../lib/providers/sms.ts';
import type { Sealer } from '../../lib/sealed.ts';
import { render } from '../../lib/templates/index.ts';
import {
  type Attempt,
  acknowledged,
  asked,
  type Contents,
  claimed,
  isEnded,
  type Lane,
  lanes,
  type Notification,
  over,
  type Progress,
  type Receipt,
  receipted,
  refused,
  taken,
  waiting,
} from './notification.ts';
import type { ProviderHealth } from './provider-health.ts';
import { type Recipient, type RecipientParts, recipientsOf } from './recipients.ts';
import type { NotificationRecords } from './records.ts';
import { type ReportParts, report } from './report.ts';
import { claimLastsMs, laneRules, type Next, next, type View } from './routing.ts';
import type { Slots } from './turns.ts';

export interface SenderParts extends RecipientParts {
  records: NotificationRecords;
  providers: MessageProviders;
  health: ProviderHealth;
  sealer: Sealer;
  logger: Log;
  metrics: MetricRegistry;
  reporting: ReportParts;
  /** In flight at once: sign-in codes, and all others together. */
  slots: { otp: Slots; others: Slots };
  pushAckMs: number;
  receiptAfterMs: number;
  /** The push service does not know this installation any more. */
  dropPushToken: (userId: string, token: string) => Promise<void>;
}

type Sending = Extract<Next, { do: 'send' }>;
/** An attempt that somebody has to find out about. */
type Outstanding = { index: number };

interface Known {
  contents: Contents;
  recipient: Recipient;
}

/** How a message to one provider ended. */
type Outcome = { messageId: string } | { code: string; permanent: boolean; unsure: boolean };

/** How long the question whether a provider has a message may take, ms. */
const findTimeoutMs = 2000;
/** By how much the clocks of a provider and ours may differ, ms. */
const clockSlackMs = 2000;
const noChannels: readonly Channel[] = [];

export class Sender {
  readonly #parts: SenderParts;
  readonly #names: View['providers'];
  readonly #byName = new Map<MessageProviderName, MessageProvider<never>>();

  constructor(parts: SenderParts) {
    this.#parts = parts;
    const { sms, whatsapp, email, push } = parts.providers;
    const namesOf = (list: readonly { name: MessageProviderName }[]) => list.map(({ name }) => name);
    this.#names = {
      sms: namesOf(sms),
      whatsapp: namesOf(whatsapp),
      email: namesOf(email),
      push: namesOf(push),
    };
    for (const provider of [...sms, ...whatsapp, ...email, ...push])
      this.#byName.set(provider.name, provider);
  }

  /** Brings each as far as it can come now. Rejects when some could not be brought on; they are due again by themselves. */
  async process(ids: readonly string[]): Promise<void> {
    const found = (await this.#parts.records.readMany(ids)).filter(
      (notification) => notification !== null && !isEnded(notification.progress),
    ) as Notification[];
    const known = await this.#lookUp(found.filter(({ progress }) => needsRecipient(progress)));
    const results = await Promise.allSettled(
      found.map((notification) => this.#advance(notification, known.get(notification.id))),
    );
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) throw failed.reason;
  }

  /** The app has shown it; false when there is no such notification of this user. */
  async acknowledge(id: string, userId: string): Promise<boolean> {
    const { records, now } = this.#parts;
    const found = await records.read(id);
    if (found?.request.userId !== userId) return false;
    await this.#change(found, (progress) => acknowledged(progress, now()));
    return true;
  }

  /** A receipt about a notification: its lane when its next way is due at once, else null. */
  async receipt(id: string, receipt: Receipt): Promise<Lane | null> {
    const { records, now } = this.#parts;
    const found = await records.read(id);
    if (!found) return null;
    const { progress, request } = await this.#change(found, (before) => receipted(before, receipt, now()));
    return !isEnded(progress) && progress.attempts.at(-1)?.state === 'failed' ? request.lane : null;
  }

  /** Changes and tells; due when its wait says, or at once. */
  async #change(
    found: Notification,
    change: (progress: Progress) => Progress,
    options: { once?: true; claimUntil?: number; taken?: { provider: string; messageId: string } } = {},
  ): Promise<Notification & { changed: boolean }> {
    const { records, reporting, now } = this.#parts;
    const { once, claimUntil, taken: message } = options;
    const { template, lane, userId } = found.request;
    const made = await records.change(found, now(), change, {
      dueAt: ({ wait, attempts }) =>
        claimUntil ?? (wait?.after === attempts.length ? Math.max(wait.until, now()) : now()),
      dead: ({ status, reason, attempts }) =>
        status === 'failed' || status === 'expired'
          ? { id: found.id, template, lane, userId, status, reason, attempts: attempts.length, at: now() }
          : null,
      ...(once ? { once } : {}),
      ...(message ? { taken: message } : {}),
    });
    if (made.changed) report(reporting, made.before, made.notification, now());
    let { notification } = made;
    // They came before the provider's own answer
    for (const receipt of made.early)
      notification = await this.#change(notification, (progress) => receipted(progress, receipt, now()));
    return { ...notification, changed: made.changed };
  }

  async #lookUp(found: readonly Notification[]): Promise<Map<string, Known | null | Error>> {
    const { sealer } = this.#parts;
    const opened = found.flatMap(({ id, request, sealed }) =>
      sealed === null ? [] : [{ id, request, contents: JSON.parse(sealer.open(sealed)) as Contents }],
    );
    if (opened.length === 0) return new Map();
    const recipients = await recipientsOf(opened, this.#parts);
    return new Map(
      opened.map(({ id, contents }): [string, Known | null | Error] => {
        const recipient = recipients.get(id);
        if (recipient instanceof Error) return [id, recipient];
        return [id, recipient ? { contents, recipient } : null];
      }),
    );
  }

  async #advance(found: Notification, foundKnown: Known | null | Error | undefined): Promise<void> {
    let notification = found;
    let known = foundKnown;
    for (;;) {
      if (isEnded(notification.progress)) return;
      if (known === undefined && needsRecipient(notification.progress))
        known = (await this.#lookUp([notification])).get(notification.id) ?? null;
      // It comes up again by itself, until it expires
      if (known instanceof Error) return this.#unknown(notification, known);
      if (known === null) {
        await this.#change(notification, (progress) =>
          over(progress, 'failed', 'no-user', this.#parts.now()),
        );
        return;
      }
      const step = next(notification.request, notification.progress, this.#view(known?.recipient));
      const after = await this.#take(step, notification, known);
      if (!after) return;
      notification = after;
    }
  }

  /** Whoever cannot be looked up is tried again, later each time, and given up when it expires. */
  async #unknown(notification: Notification, error: Error): Promise<void> {
    const { now, logger } = this.#parts;
    const { id, request } = notification;
    logger.warn('The recipient of a notification cannot be looked up now', { notificationId: id, error });
    if (now() < request.expiresAt) return;
    await this.#change(notification, (progress) => over(progress, 'expired', 'recipient-unknown', now()));
  }

  /** Does what is next; null when there is nothing more to do now. */
  async #take(
    step: Next,
    notification: Notification,
    known: Known | undefined,
  ): Promise<Notification | null> {
    switch (step.do) {
      case 'nothing':
        return null;
      case 'wait':
      case 'end':
        await this.#settle(notification, known?.recipient);
        return null;
      case 'ask':
        return this.#ask(notification, step);
      case 'recover':
        return this.#recover(notification, step, known);
      case 'send':
        return known ? this.#send(notification, step, known) : null;
    }
  }

  async #settle(notification: Notification, recipient: Recipient | undefined): Promise<void> {
    await this.#change(notification, (progress) => this.#settled(notification, progress, recipient));
  }

  /** With the wait or the end that is next, so that both are written at once. */
  #settled({ request }: Notification, progress: Progress, recipient: Recipient | undefined): Progress {
    const step = next(request, progress, this.#view(recipient));
    if (step.do === 'end') return over(progress, step.status, step.reason, this.#parts.now());
    return step.do === 'wait' ? waiting(progress, step.why, step.until) : progress;
  }

  #view(recipient: Recipient | undefined): View {
    const { health, now, pushAckMs, receiptAfterMs } = this.#parts;
    const at = now();
    return {
      now: at,
      channels: recipient?.channels ?? noChannels,
      quietUntil: recipient?.quietUntil ?? null,
      providers: this.#names,
      shunnedUntil: (provider) => health.shunnedUntil(provider, at),
      canBeAsked: (provider) => this.#byName.get(provider)?.deliveryOf !== undefined,
      random: Math.random,
      pushAckMs,
      receiptAfterMs,
    };
  }

  async #send(notification: Notification, step: Sending, known: Known): Promise<Notification | null> {
    const { slots, health } = this.#parts;
    const { lane } = notification.request;
    const rank = lanes.indexOf(lane);
    return (lane === 'otp' ? slots.otp : slots.others).run(rank, async () => {
      await health.turn(step.provider, rank);
      return this.#attempt(notification, step, known);
    });
  }

  async #attempt(found: Notification, step: Sending, known: Known): Promise<Notification | null> {
    const { health, now, metrics } = this.#parts;
    const { lane, expiresAt } = found.request;
    const { provider, channel } = step;
    const began = now();
    // While it waited for its turn
    if (began >= expiresAt || health.shunnedUntil(provider, began) !== null) return found;
    // At once: a provider that is on trial gets one message
    health.began(provider, began, laneRules[lane].timeoutMs);
    const claim = await this.#change(found, (progress) => claimed(progress, step, began), {
      once: true,
      claimUntil: began + claimLastsMs(lane),
    });
    // Somebody else is at it
    if (!claim.changed) return null;
    const index = claim.progress.attempts.length - 1;
    if (claim.progress.attempts[index - 1]?.unsure) metrics.increment('notify.resent.total', { channel });
    const outcome = await this.#handOver(claim, step, known);
    const ended = now();
    const isTaken = 'messageId' in outcome;
    const apply = (progress: Progress) =>
      isTaken ? taken(progress, index, outcome.messageId, ended) : refused(progress, index, outcome, ended);
    const message = isTaken ? { taken: { provider, messageId: outcome.messageId } } : {};
    return this.#change(claim, (progress) => this.#settled(claim, apply(progress), known.recipient), message);
  }

  async #handOver(notification: Notification, step: Sending, known: Known): Promise<Outcome> {
    const { health, now, logger } = this.#parts;
    const { provider } = step;
    const { lane, userId } = notification.request;
    const since = now();
    let send: (timeoutMs: number) => Promise<{ providerMessageId: string }>;
    try {
      send = this.#messageFor(notification, step, known);
    } catch (error) {
      logger.error('A notification cannot be made into a message', {
        notificationId: notification.id,
        error,
      });
      return { code: typeOf(error) ?? 'UNUSABLE', permanent: true, unsure: false };
    }
    try {
      const { providerMessageId } = await send(laneRules[lane].timeoutMs);
      health.answered(provider);
      return { messageId: providerMessageId };
    } catch (error) {
      health.failed(provider, error, now());
      const failure = failureOf(error);
      if (failure.code === 'UNREGISTERED' && userId !== null && known.recipient.pushToken !== null)
        await this.#dropToken(userId, known.recipient.pushToken);
      // A code is worth more early than once
      if (!failure.unsure || lane === 'otp') return failure;
      const found = await this.#find(notification, step, known, since);
      return found === null ? failure : { messageId: found };
    }
  }

  /** What is to be called to send it. @throws AppError when the template does not take it */
  #messageFor(
    { id, request }: Notification,
    { channel, provider: name }: Pick<Attempt, 'channel' | 'provider'>,
    { contents: { data }, recipient }: Known,
  ): (timeoutMs: number) => Promise<{ providerMessageId: string }> {
    const { template, lane, expiresAt } = request;
    const { language, phone, email, pushToken } = recipient;
    const { providers, now } = this.#parts;
    const wanted = { template, language, data };
    const send = <M>(list: readonly MessageProvider<M>[], message: M) => {
      const provider = list.find((candidate) => candidate.name === name);
      if (!provider) throw new Error(`There is no provider ${name}`);
      return (timeoutMs: number) => provider.send(message, { timeoutMs });
    };
    switch (channel) {
      case 'sms':
        return send(providers.sms, this.#smsFor(request, recipient, data));
      case 'whatsapp':
        return send(providers.whatsapp, { to: phone ?? '', template: render({ ...wanted, channel }) });
      case 'email':
        return send(providers.email, {
          ...render({ ...wanted, channel }),
          to: email ?? '',
          notificationId: id,
        });
      case 'push': {
        const shown = render({ ...wanted, channel });
        return send(providers.push, {
          ...shown,
          token: pushToken ?? '',
          data: { ...shown.data, notificationId: id },
          priority: lane === 'high' || lane === 'otp' ? 'high' : 'normal',
          ttlMs: Math.max(0, expiresAt - now()),
        });
      }
    }
  }

  #smsFor(
    { template }: Notification['request'],
    recipient: Recipient,
    data: Record<string, string>,
  ): SmsMessage {
    const { language, phone } = recipient;
    return { to: phone ?? '', ...render({ template, channel: 'sms', language, data }) };
  }

  /** The provider's id of a message that it may have taken; null when it has not, or cannot tell. */
  async #find(
    { request }: Notification,
    { channel, provider: name }: Pick<Attempt, 'channel' | 'provider'>,
    { contents, recipient }: Known,
    since: number,
  ): Promise<string | null> {
    const provider = this.#parts.providers.sms.find((candidate) => candidate.name === name);
    if (channel !== 'sms' || !provider || !canFind(provider)) return null;
    try {
      const { to, body } = this.#smsFor(request, recipient, contents.data);
      const sent = { to, body, since: since - clockSlackMs };
      return (await provider.findSent(sent, { timeoutMs: findTimeoutMs }))?.providerMessageId ?? null;
    } catch (error) {
      // Who cannot tell has not sent it, as far as anybody knows
      this.#parts.logger.debug('A provider does not tell whether it has a message', {
        provider: name,
        error,
      });
      return null;
    }
  }

  /** Whoever made this attempt has died over it: has the provider got it? Twice beats never, but once is better. */
  async #recover(
    notification: Notification,
    { index }: Outstanding,
    foundKnown: Known | undefined,
  ): Promise<Notification> {
    const { now } = this.#parts;
    const attempt = notification.progress.attempts[index];
    if (!attempt) throw new Error('There is no such attempt');
    const known = foundKnown ?? (await this.#lookUp([notification])).get(notification.id);
    const messageId =
      known && !(known instanceof Error) ? await this.#find(notification, attempt, known, attempt.at) : null;
    if (messageId !== null)
      return this.#change(notification, (progress) => taken(progress, index, messageId, now()), {
        taken: { provider: attempt.provider, messageId },
      });
    const lost = { code: 'LOST', permanent: false, unsure: true };
    return this.#change(notification, (progress) => refused(progress, index, lost, now()));
  }

  /** What became of a message that no receipt came for. */
  async #ask(notification: Notification, { index }: Outstanding): Promise<Notification> {
    const { now, logger } = this.#parts;
    const attempt = notification.progress.attempts[index];
    const { provider: name, messageId } = attempt ?? {};
    if (name === undefined || messageId === undefined) throw new Error('There is no such message');
    const { timeoutMs } = laneRules[notification.request.lane];
    const delivery = await this.#byName
      .get(name)
      ?.deliveryOf?.(messageId, { timeoutMs })
      .catch((error: unknown) => {
        logger.warn('A provider does not tell what became of a message', { provider: name, error });
        return null;
      });
    return this.#change(notification, (progress) => {
      if (!delivery) return asked(progress, index);
      const { state, code } = delivery;
      const receipt = { provider: name, providerMessageId: messageId, state, code };
      return asked(receipted(progress, receipt, now()), index);
    });
  }

  async #dropToken(userId: string, token: string): Promise<void> {
    await this.#parts
      .dropPushToken(userId, token)
      .catch((error: unknown) =>
        this.#parts.logger.warn('A dead push token is still kept', { userId, error }),
      );
  }
}

const isTakenState = ({ state }: Attempt): boolean => state === 'accepted' || state === 'sent';

/** Not while all that is waited for is what a provider says. */
function needsRecipient({ attempts }: Progress): boolean {
  const last = attempts.at(-1);
  return !last || last.state === 'failed' || (last.channel === 'push' && isTakenState(last));
}

const canFind = (provider: MessageProvider<SmsMessage>): provider is Required<SmsProvider> =>
  'findSent' in provider && typeof provider.findSent === 'function';

/** No answer, or none that says no: the message may have been taken all the same. */
function failureOf(error: unknown): Extract<Outcome, { code: string }> {
  if (!(error instanceof ProviderError))
    return { code: errorCode(error) ?? 'UNKNOWN', permanent: false, unsure: true };
  const { code, permanent, status } = error;
  return { code, permanent, unsure: status === undefined && !permanent && code !== 'ECONNREFUSED' };
}

const typeOf = (error: unknown): string | undefined =>
  typeof error === 'object' && error !== null && 'type' in error && typeof error.type === 'string'
    ? error.type
    : undefined;
