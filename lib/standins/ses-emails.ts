/**
 * What Amazon SES (API version 2) answers to `POST /v2/email/outbound-emails`, and the events that it has SNS tell our webhook.
 *
 * Sources of the formats:
 * - request, answer, errors: https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html and
 *   https://docs.aws.amazon.com/ses/latest/APIReference-V2/CommonErrors.html
 * - recipients that always bounce or complain: https://docs.aws.amazon.com/ses/latest/dg/send-an-email-from-console.html
 * - events: https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-examples.html
 * - SNS's messages, headers and signature: https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html and
 *   https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message-verify-message-signature.html
 */
import { createPrivateKey, type KeyObject, randomUUID, sign } from 'node:crypto';
import { z } from 'zod';
import { type AwsCredentials, problemOf, type SignatureProblem } from './aws-signature.ts';
import { DEVELOPMENT_SNS } from './development-keys.ts';
import type { Callback, Protocol, ProviderReply, Receipt } from './protocol.ts';

/** The one user of the simulated SES, and its configuration set. */
export interface SesAccount extends AwsCredentials {
  configurationSet: string;
}

const PATH = '/v2/email/outbound-emails';
const WEBHOOK_PATH = '/api/v1/webhooks/ses';

/** Where the simulator itself serves what this stands for: the certificate, and the page that confirms a subscription. */
export const SNS_CERTIFICATE_PATH = '/SimpleNotificationService-development-only.pem';
export const SNS_CONFIRM_PATH = '/sns/confirm';

/** SES's mailbox simulator. */
const SIMULATED_BOUNCES = new Set([
  'bounce@simulator.amazonses.com',
  'suppressionlist@simulator.amazonses.com',
]);
const SIMULATED_COMPLAINT = 'complaint@simulator.amazonses.com';

const PROBLEMS: Record<SignatureProblem, string> = {
  MissingAuthenticationTokenException: 'Missing Authentication Token',
  IncompleteSignature: 'The request signature does not conform to AWS standards.',
  InvalidClientTokenId: 'The security token included in the request is invalid.',
  RequestExpired: 'The request reached the service more than 15 minutes after the date stamp on the request.',
  SignatureDoesNotMatch:
    'The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.',
};

/** Statuses that are not 400. */
const STATUSES: Record<string, number> = {
  TooManyRequestsException: 429,
  InternalFailure: 500,
  InternalServiceError: 500,
  ServiceUnavailable: 503,
  NotFoundException: 404,
};

const utf8 = z.object({ Data: z.string().min(1), Charset: z.string().optional() });
const email = z.object({
  FromEmailAddress: z.string().min(1),
  Destination: z.object({ ToAddresses: z.array(z.string()).min(1).max(50) }),
  Content: z.object({
    Simple: z.object({ Subject: utf8, Body: z.object({ Text: utf8.optional(), Html: utf8.optional() }) }),
  }),
  ConfigurationSetName: z.string().optional(),
  EmailTags: z.array(z.object({ Name: z.string(), Value: z.string().regex(/^[\w.@-]{1,256}$/) })).default([]),
});
type Email = z.output<typeof email>;

/** SES for one user. `origin` is where the simulator is: SNS's messages have addresses of it. */
export function sesEmails(account: SesAccount, origin: () => string): Protocol {
  const key = createPrivateKey(DEVELOPMENT_SNS.privateKey);
  return {
    name: 'ses',
    serves: (path) => path === PATH,
    answer(request, rejectWith) {
      const problem = problemOf(request, account, 'ses');
      if (problem) return failure(problem, PROBLEMS[problem], 403);
      if (request.method !== 'POST') return failure('UnknownOperationException', 'Unknown operation', 404);
      const sent = readEmail(request.body);
      if (!sent) return failure('BadRequestException', 'The input does not satisfy the constraints');
      const [name, message] = whyRefused(sent, account) ?? [];
      if (name) return failure(name, message ?? '');
      if (rejectWith !== undefined) return failure(String(rejectWith), `Refused with ${rejectWith}`);
      return taken(sent);
    },
    fates({ to }) {
      if (SIMULATED_BOUNCES.has(to)) return ['sent', 'failed'];
      return to === SIMULATED_COMPLAINT ? ['sent', 'delivered', 'complained'] : undefined;
    },
    callback(receipt, base) {
      const event = base === undefined ? undefined : eventOf(receipt, account);
      return event && snsCallback('Notification', { Message: JSON.stringify(event) }, key, origin());
    },
    inbound: () => snsSubscription(key, origin()),
    unreadable: () => failure('BadRequestException', 'The request is too large', 413),
    tooMany: () => failure('TooManyRequestsException', 'Maximum sending rate exceeded.'),
    broken: () => failure('InternalFailure', 'An internal failure occurred.'),
  };
}

/** What SNS sends to a webhook that was subscribed: a visit to its SubscribeURL confirms it. */
function snsSubscription(key: KeyObject, origin: string): Callback {
  const token = randomUUID().replaceAll('-', '').repeat(2);
  const query = new URLSearchParams({
    Action: 'ConfirmSubscription',
    TopicArn: DEVELOPMENT_SNS.topicArn,
    Token: token,
  });
  return snsCallback(
    'SubscriptionConfirmation',
    {
      Message: `You have chosen to subscribe to the topic ${DEVELOPMENT_SNS.topicArn}.\nTo confirm the subscription, visit the SubscribeURL included in this message.`,
      SubscribeURL: `${origin}${SNS_CONFIRM_PATH}?${query.toString()}`,
      Token: token,
    },
    key,
    origin,
  );
}

/** The fields that SNS signs, in order, where a message has them. */
const SIGNED = [
  'Message',
  'MessageId',
  'Subject',
  'SubscribeURL',
  'Timestamp',
  'Token',
  'TopicArn',
  'Type',
] as const;

/** SNS's signature: version 1 is over SHA-1, version 2 over SHA-256. */
export function snsSignature(key: KeyObject, version: '1' | '2', fields: Record<string, string>): string {
  const signed = SIGNED.filter((name) => fields[name] !== undefined)
    .map((name) => `${name}\n${fields[name]}\n`)
    .join('');
  return sign(version === '1' ? 'sha1' : 'sha256', Buffer.from(signed), key).toString('base64');
}

function snsCallback(
  type: 'Notification' | 'SubscriptionConfirmation',
  fields: Record<string, string>,
  key: KeyObject,
  origin: string,
): Callback {
  const message: Record<string, string> = {
    Type: type,
    MessageId: randomUUID(),
    TopicArn: DEVELOPMENT_SNS.topicArn,
    ...(type === 'Notification' ? { Subject: 'Amazon SES Email Event Notification' } : {}),
    ...fields,
    Timestamp: new Date().toISOString(),
  };
  return {
    path: WEBHOOK_PATH,
    headers: {
      'Content-Type': 'text/plain; charset=UTF-8',
      'User-Agent': 'Amazon Simple Notification Service Agent',
      'x-amz-sns-message-type': type,
      'x-amz-sns-message-id': message['MessageId'] ?? '',
      'x-amz-sns-topic-arn': DEVELOPMENT_SNS.topicArn,
    },
    body: JSON.stringify({
      ...message,
      SignatureVersion: '2',
      Signature: snsSignature(key, '2', message),
      SigningCertURL: origin + SNS_CERTIFICATE_PATH,
    }),
  };
}

function failure(name: string, message: string, status = STATUSES[name] ?? 400): ProviderReply {
  return { status, headers: { 'x-amzn-ErrorType': name }, body: { message } };
}

function readEmail(body: string): Email | undefined {
  try {
    return email.safeParse(JSON.parse(body)).data;
  } catch {
    return undefined;
  }
}

function whyRefused(
  { FromEmailAddress, Destination, Content, ConfigurationSetName }: Email,
  { configurationSet }: SesAccount,
): [name: string, message: string] | undefined {
  const isAddress = (text: string) => z.email().safeParse(/<([^<>]+)>$/.exec(text)?.[1] ?? text).success;
  if (!isAddress(FromEmailAddress)) return ['BadRequestException', "Missing final '@domain'"];
  if (!Destination.ToAddresses.every(isAddress)) return ['BadRequestException', "Missing final '@domain'"];
  const { Text, Html } = Content.Simple.Body;
  if (!Text && !Html) return ['BadRequestException', 'The body has neither text nor HTML'];
  if (ConfigurationSetName !== undefined && ConfigurationSetName !== configurationSet)
    return ['NotFoundException', `Configuration set <${ConfigurationSetName}> does not exist.`];
  return undefined;
}

function taken({ Destination, Content, EmailTags }: Email): ProviderReply {
  const id = `0109${randomUUID().replaceAll('-', '').slice(0, 12)}-${randomUUID()}-000000`;
  const { Subject, Body } = Content.Simple;
  const notificationId = EmailTags.find(({ Name }) => Name === 'notificationId')?.Value;
  return {
    status: 200,
    body: { MessageId: id },
    taken: Destination.ToAddresses.map((to) => ({
      id,
      channel: 'email',
      to,
      template: null,
      subject: Subject.Data,
      text: Body.Text?.Data ?? '',
      html: Body.Html?.Data ?? '',
      ...(notificationId === undefined ? {} : { notificationId }),
    })),
  };
}

function eventOf(
  { message: { id, to, notificationId }, state, code, at }: Receipt,
  { configurationSet }: SesAccount,
): Record<string, unknown> | undefined {
  const timestamp = at.toISOString();
  const mail = {
    timestamp,
    source: 'no-reply@example.com',
    sendingAccountId: '000000000000',
    messageId: id,
    destination: [to],
    headersTruncated: false,
    headers: [],
    tags: {
      'ses:configuration-set': [configurationSet],
      ...(notificationId === undefined ? {} : { notificationId: [notificationId] }),
    },
  };
  switch (state) {
    case 'sent':
      return { eventType: 'Send', mail, send: {} };
    case 'delivered':
      return {
        eventType: 'Delivery',
        mail,
        delivery: {
          timestamp,
          processingTimeMillis: 100,
          recipients: [to],
          smtpResponse: '250 2.6.0 Message received',
          reportingMTA: 'mta.example.com',
        },
      };
    case 'failed': {
      const status = typeof code === 'string' ? code : '5.1.1';
      return {
        eventType: 'Bounce',
        mail,
        bounce: {
          bounceType: 'Permanent',
          bounceSubType: 'General',
          bouncedRecipients: [
            {
              emailAddress: to,
              action: 'failed',
              status,
              diagnosticCode: `smtp; 550 ${status} user unknown`,
            },
          ],
          timestamp,
          feedbackId: randomUUID(),
          reportingMTA: 'dsn; mta.example.com',
        },
      };
    }
    case 'complained':
      return {
        eventType: 'Complaint',
        mail,
        complaint: {
          complainedRecipients: [{ emailAddress: to }],
          timestamp,
          feedbackId: randomUUID(),
          complaintFeedbackType: 'abuse',
        },
      };
    default:
      return undefined;
  }
}
