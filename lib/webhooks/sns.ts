/**
 * Messages that Amazon SNS posts: who may speak, and for which topic. The certificate that a message names is only fetched from SNS
 * of the topic's own region, so a forged one makes us call nobody else.
 *
 * Source: https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
 */
import { createVerify, type KeyObject, X509Certificate } from 'node:crypto';
import { z } from 'zod';
import { AppError } from '../errors.ts';
import { createHttpClient } from '../providers/http.ts';
import { type Callback, forged } from './callback.ts';

const envelope = z.object({
  Type: z.enum(['Notification', 'SubscriptionConfirmation', 'UnsubscribeConfirmation']),
  MessageId: z.string(),
  TopicArn: z.string(),
  Message: z.string(),
  Timestamp: z.string(),
  Subject: z.string().nullish(),
  Token: z.string().optional(),
  SubscribeURL: z.string().optional(),
  SignatureVersion: z.enum(['1', '2']),
  Signature: z.string(),
  SigningCertURL: z.string(),
});
export type SnsMessage = z.output<typeof envelope>;

/** In this order; a field that is not there is left out. */
const signedFields: Record<SnsMessage['Type'], readonly (keyof SnsMessage)[]> = {
  Notification: ['Message', 'MessageId', 'Subject', 'Timestamp', 'TopicArn', 'Type'],
  SubscriptionConfirmation: [
    'Message',
    'MessageId',
    'SubscribeURL',
    'Timestamp',
    'Token',
    'TopicArn',
    'Type',
  ],
  UnsubscribeConfirmation: ['Message', 'MessageId', 'SubscribeURL', 'Timestamp', 'Token', 'TopicArn', 'Type'],
};

/** SNS repeats a message for an hour at most. */
const oldestMs = 3_600_000;
const aheadMs = 5 * 60_000;

export interface SnsOptions {
  /** Topics that we are subscribed to; no other one may speak. */
  topicArns: readonly string[];
  /** Of a simulator that plays SNS, beside the real one. */
  sandboxOrigin?: string | undefined;
  /** The key of the certificate at an address that was found good. */
  keyAt(url: string): Promise<KeyObject>;
  now: number;
}

/** `arn:aws:sns:ap-south-1:123456789012:name` → where SNS of that region is. */
function originOf(topicArn: string): string | undefined {
  const [, partition, , region] =
    /^arn:(aws|aws-cn):(sns):([a-z0-9-]{3,30}):\d{12}:[\w.-]{1,256}$/.exec(topicArn) ?? [];
  return region && `https://sns.${region}.amazonaws.com${partition === 'aws-cn' ? '.cn' : ''}`;
}

/** An address of the topic's own SNS: nothing in it leads elsewhere. */
function isOwn(url: string, topicArn: string, sandboxOrigin: string | undefined): boolean {
  const parsed = URL.parse(url);
  return (
    parsed !== null &&
    parsed.username === '' &&
    parsed.password === '' &&
    [originOf(topicArn), sandboxOrigin].includes(parsed.origin)
  );
}

const certificatePath = /^\/SimpleNotificationService-[\w-]{1,100}\.pem$/;

/**
 * The message of a callback, from SNS and from a topic of ours.
 * @throws WEBHOOK_FORGED, WEBHOOK_TOO_OLD; UNAVAILABLE when the certificate cannot be had
 */
export async function verifySns({ body }: Pick<Callback, 'body'>, options: SnsOptions): Promise<SnsMessage> {
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch {
    forged();
  }
  // Nothing is signed that is not such a message
  const { data: message } = envelope.safeParse(json);
  if (!message || !options.topicArns.includes(message.TopicArn)) forged();
  const { SigningCertURL, TopicArn, SignatureVersion, Signature } = message;
  if (!isOwn(SigningCertURL, TopicArn, options.sandboxOrigin)) forged();
  if (!certificatePath.test(URL.parse(SigningCertURL)?.pathname ?? '')) forged();
  const verifier = createVerify(SignatureVersion === '1' ? 'RSA-SHA1' : 'RSA-SHA256');
  for (const name of signedFields[message.Type]) {
    const value = message[name];
    if (value !== undefined && value !== null) verifier.update(`${name}\n${value}\n`);
  }
  if (!verifier.verify(await options.keyAt(SigningCertURL), Signature, 'base64')) forged();
  const age = options.now - Date.parse(message.Timestamp);
  if (!(age <= oldestMs && age >= -aheadMs)) throw new AppError('WEBHOOK_TOO_OLD');
  return message;
}

/**
 * Where a subscription to the message's topic is confirmed; never another address.
 * @throws WEBHOOK_FORGED
 */
export function confirmationUrl(
  { SubscribeURL = '', TopicArn }: Pick<SnsMessage, 'SubscribeURL' | 'TopicArn'>,
  sandboxOrigin?: string,
): string {
  const query = URL.parse(SubscribeURL)?.searchParams;
  const isConfirmation = query?.get('Action') === 'ConfirmSubscription' && query.get('TopicArn') === TopicArn;
  if (!isConfirmation || !isOwn(SubscribeURL, TopicArn, sandboxOrigin)) forged();
  return SubscribeURL;
}

const timeoutMs = 3000;
/** SNS changes its certificate about once a year. */
const mostCertificates = 20;

/** What SNS is asked for: certificates, which are kept, and confirmations. */
export interface SnsClient {
  /** @throws UNAVAILABLE */
  keyAt(url: string): Promise<KeyObject>;
  /** @throws UNAVAILABLE */
  confirm(url: string): Promise<void>;
}

export function snsClient(): SnsClient {
  const send = createHttpClient();
  const keys = new Map<string, KeyObject>();
  async function get(url: string): Promise<string> {
    try {
      const { status, text } = await send({ method: 'GET', url }, AbortSignal.timeout(timeoutMs));
      if (status === 200) return text;
    } catch {
      // Not reached: the same as a refusal, for whoever repeats
    }
    throw new AppError('UNAVAILABLE', { retryAfterS: 5 });
  }
  return {
    async keyAt(url) {
      const known = keys.get(url);
      if (known) return known;
      const text = await get(url);
      let key: KeyObject;
      try {
        key = new X509Certificate(text).publicKey;
      } catch {
        throw new AppError('UNAVAILABLE', { retryAfterS: 5 });
      }
      const [oldest] = keys.keys();
      if (keys.size >= mostCertificates && oldest !== undefined) keys.delete(oldest);
      keys.set(url, key);
      return key;
    },
    async confirm(url) {
      await get(url);
    },
  };
}
