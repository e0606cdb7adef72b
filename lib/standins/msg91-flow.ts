/**
 * What MSG91 answers to `POST /api/v5/flow`, and the delivery report that it sends us.
 *
 * Sources of the formats:
 * - headers, body and success: https://docs.msg91.com/sms/send-sms and
 *   https://api.msg91.com/apidoc/textsms/send-sms-flow.php
 * - numbers without a plus, case-sensitive variables: https://msg91.com/help/api
 * - codes: MSG91's list of SMS API error codes (101 missing number, 202 invalid number, 203 sender, 207 key, 418 address,
 *   601 internal). MSG91 does not document which of them come with status 200; users report that a refused address and a
 *   malformed request do, and a wrong key with 401.
 * - delivery reports (JSON, version 3) and their statuses: https://msg91.com/help/how-can-i-get-the-delivery-reports-on-my-webhook-url.
 *   MSG91 signs nothing: the webhook's settings add a header of ours, with a secret.
 *
 * Stricter than MSG91, which takes a template id that is missing or no id and fails only at delivery (211).
 */
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { DEVELOPMENT_SECRET } from './development-keys.ts';
import type { Protocol, ProviderReply } from './protocol.ts';

/** The one key that the simulated MSG91 knows, and the secret that its reports bring along. */
export interface Msg91Account {
  authKey: string;
  webhookSecret?: string;
}

const MSG91_PATH = '/api/v5/flow';
const WEBHOOK_PATH = '/api/v1/webhooks/msg91';

/** Our header: MSG91 lets each webhook have some. */
const SECRET_HEADER = 'X-Webhook-Secret';

/** Of the report: delivered, and what failed unless a script says another of them. */
const DELIVERED = '1';
const FAILED = '2';

const ERRORS: Record<number, { status?: number; message: string }> = {
  101: { message: 'Missing mobile no.' },
  202: { message: 'Invalid mobile number' },
  203: { message: 'Invalid sender ID' },
  207: { status: 401, message: 'Invalid authkey' },
  211: { message: 'Template ID Missing or Invalid Template' },
  301: { message: 'Insufficient balance to send SMS' },
  311: { message: 'Request discarded because same request was generated twice within 10 seconds' },
  400: { status: 400, message: 'Please provide valid JSON' },
  404: { status: 404, message: 'Not found' },
  405: { status: 405, message: 'Method not allowed' },
  418: { message: 'IP is not whitelisted' },
  429: { status: 429, message: 'Too many requests' },
  601: { status: 500, message: 'Internal error. Please contact support for details' },
};

/** Country code and number, without a plus. */
const MOBILE = /^[1-9]\d{9,14}$/;

const flow = z.object({
  template_id: z.string().default(''),
  sender: z.string().optional(),
  short_url: z.union([z.enum(['0', '1']), z.literal([0, 1])]).optional(),
  recipients: z.array(z.record(z.string(), z.union([z.string(), z.number()]))).default([]),
});
type Flow = z.output<typeof flow>;

/** The flow API of one account. A request to several numbers is one message each, as it is billed. */
export function msg91Flow({ authKey, webhookSecret = DEVELOPMENT_SECRET }: Msg91Account): Protocol {
  return {
    name: 'msg91',
    serves: (path) => path === MSG91_PATH || path === `${MSG91_PATH}/`,
    answer(request, rejectWith) {
      if (request.method !== 'POST') return msg91Error(405);
      if (request.headers['authkey'] !== authKey) return msg91Error(207);
      const sent = readFlow(request.headers['content-type'], request.body);
      if (!sent) return msg91Error(400);
      const refusal = whyRefused(sent) ?? rejectWith;
      return refusal === undefined ? taken(sent) : msg91Error(refusal);
    },
    callback({ message: { id, to }, state, code, at }, base) {
      // Only the end is reported
      if (base === undefined || (state !== 'delivered' && state !== 'failed')) return undefined;
      const delivered = state === 'delivered';
      return {
        path: WEBHOOK_PATH,
        headers: { 'Content-Type': 'application/json', [SECRET_HEADER]: webhookSecret },
        body: JSON.stringify({
          date: at.toISOString().slice(0, 19).replace('T', ' '),
          number: to.replace(/^\+/, ''),
          senderId: 'RIDESF',
          amount: '0.01',
          requestId: id,
          INMSID: '0',
          CRQID: '0',
          credit: '1',
          userId: '100000',
          campaignName: 'API',
          status: delivered ? DELIVERED : String(code ?? FAILED),
          desc: delivered ? 'DELIVERED' : 'FAILED',
        }),
      };
    },
    unreadable: () => msg91Error(400),
    tooMany: () => msg91Error(429),
    broken: () => msg91Error(601),
    errorInOk: () => msg91Error(418),
  };
}

function msg91Error(code: number | string): ProviderReply {
  const { status = 200, message = `Refused with code ${code}` } = ERRORS[Number(code)] ?? {};
  return { status, body: { type: 'error', message, code: String(code).padStart(3, '0') } };
}

function readFlow(contentType: string | undefined, body: string): Flow | undefined {
  if (!contentType?.startsWith('application/json')) return undefined;
  try {
    return flow.safeParse(JSON.parse(body)).data;
  } catch {
    return undefined;
  }
}

function whyRefused({ template_id, sender, recipients }: Flow): number | undefined {
  const numbers = recipients.map(({ mobiles = '' }) => String(mobiles));
  if (numbers.length === 0 || numbers.includes('')) return 101;
  if (!numbers.every((number) => MOBILE.test(number))) return 202;
  if (sender !== undefined && !/^[A-Za-z]{6}$/.test(sender)) return 203;
  return /^[0-9a-f]{24}$/i.test(template_id) ? undefined : 211;
}

function taken({ template_id, recipients }: Flow): ProviderReply {
  const id = randomUUID().replaceAll('-', '').slice(0, 24);
  return {
    status: 200,
    body: { message: id, type: 'success' },
    taken: recipients.map(({ mobiles, ...variables }) => ({
      id,
      channel: 'sms',
      to: `+${mobiles}`,
      template: template_id,
      text: Object.entries(variables)
        .map(([name, value]) => `${name}: ${value}`)
        .join('\n'),
    })),
  };
}
