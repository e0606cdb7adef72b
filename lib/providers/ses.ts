import * as http from 'node:http';
import * as https from 'node:https';
import { SESv2Client, SESv2ServiceException, SendEmailCommand } from '@aws-sdk/client-sesv2';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { errorCode } from '../error-code.ts';
import { currentOf, type Secret } from '../secret.ts';
import { withDeadline } from './deadline.ts';
import { isPermanentStatus, POOL } from './http.ts';
import type { EmailMessage, MessageProvider } from './provider.ts';
import { ProviderError } from './provider-error.ts';

/**
 * `from` is a verified identity: an address, or `Name <address>`. `configurationSet` publishes the events of what is sent. Without
 * `credentials` those of the machine's role are used, as the AWS SDK finds them.
 */
export interface SesOptions {
  region: string;
  from: string;
  configurationSet: string;
  credentials?: { accessKeyId: string; secretAccessKey: Secret<string> | string };
  /** Replaces `https://email.REGION.amazonaws.com`, for a simulator or an egress proxy. */
  baseUrl?: string;
}

const PROVIDER = 'ses';

/** Throttling that comes with a 400. */
const TRANSIENT_CODES = new Set(['ThrottlingException', 'Throttling', 'RequestTimeout']);

/** What the value of a tag may be; a notification whose id is none is found by the message's id alone. */
const TAG_VALUE = /^[\w.@-]{1,256}$/;

/**
 * An email adapter over the AWS SDK, whose own retries are off: whoever calls decides on them.
 *
 * Sources: https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html and
 * https://docs.aws.amazon.com/ses/latest/APIReference-V2/CommonErrors.html
 */
export function createSes(options: SesOptions): MessageProvider<EmailMessage> {
  const client = new SESv2Client({
    region: options.region,
    maxAttempts: 1,
    requestHandler: new Connections({ httpAgent: new http.Agent(POOL), httpsAgent: new https.Agent(POOL) }),
    ...(options.baseUrl ? { endpoint: options.baseUrl } : {}),
    ...(options.credentials ? { credentials: providerOf(options.credentials) } : {}),
  });
  return {
    name: PROVIDER,
    channel: 'email',
    send: (message, callOptions) =>
      withDeadline(PROVIDER, callOptions, async (abortSignal) => {
        try {
          const { MessageId } = await client.send(commandOf(message, options), { abortSignal });
          if (MessageId) return { providerMessageId: MessageId };
        } catch (error) {
          throw refused(error) ?? error;
        }
        throw new ProviderError({ provider: PROVIDER, code: 'NO_ID', permanent: false });
      }),
  };
}

/** The SDK keeps credentials that do not expire; ours can change while we run. */
function providerOf({ accessKeyId, secretAccessKey }: NonNullable<SesOptions['credentials']>) {
  return async () => ({
    accessKeyId,
    secretAccessKey: currentOf(secretAccessKey),
    expiration: new Date(Date.now() + 1000),
  });
}

function commandOf(
  { to, subject, html, text, notificationId }: EmailMessage,
  { from, configurationSet }: SesOptions,
): SendEmailCommand {
  const utf8 = (Data: string) => ({ Data, Charset: 'UTF-8' });
  return new SendEmailCommand({
    FromEmailAddress: from,
    Destination: { ToAddresses: [to] },
    Content: { Simple: { Subject: utf8(subject), Body: { Text: utf8(text), Html: utf8(html) } } },
    ConfigurationSetName: configurationSet,
    ...(TAG_VALUE.test(notificationId)
      ? { EmailTags: [{ Name: 'notificationId', Value: notificationId }] }
      : {}),
  });
}

/** The SDK wraps what is no Error of its own realm (Node's, under a test runner), and with it the system's code. */
class Connections extends NodeHttpHandler {
  override async handle(...call: Parameters<NodeHttpHandler['handle']>) {
    try {
      return await super.handle(...call);
    } catch (error) {
      throw Object.assign(new Error('The connection failed'), { code: errorCode(error) });
    }
  }
}

/** What the SDK notes on an error of an answer, which can be one of SES or of reading what is no answer of SES. */
type Answered = Pick<SESv2ServiceException, 'name' | '$metadata' | '$response'>;

/** Undefined when there was no answer. */
function refused(error: unknown): ProviderError | undefined {
  const { name, $metadata, $response } = error as Partial<Answered>;
  const status = $metadata?.httpStatusCode;
  if (status === undefined) return undefined;
  const code = error instanceof SESv2ServiceException && name !== 'Unknown' ? name : undefined;
  const retryAfterS = Number($response?.headers['retry-after']);
  return new ProviderError({
    provider: PROVIDER,
    code: code ?? `HTTP_${status}`,
    permanent: isPermanentStatus(status) && !(code !== undefined && TRANSIENT_CODES.has(code)),
    status,
    retryAfterMs: Number.isNaN(retryAfterS) ? undefined : retryAfterS * 1000,
  });
}
