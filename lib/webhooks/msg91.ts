/**
 * MSG91's delivery reports. They are not signed: the webhook is set up to send a header with a secret of ours.
 *
 * Sources: https://msg91.com/help/how-can-i-get-the-delivery-reports-on-my-webhook-url (versions 2 and 3, codes),
 * https://msg91.com/help/webhook-new/how-to-receive-sms-delivery-reports-via-webhook-new (the new one, its header)
 */
import { z } from 'zod';
import {
  type Callback,
  forged,
  jsonOf,
  type Receipt,
  readable,
  receipt,
  sameSecret,
  type Told,
  told,
  unreadable,
} from './callback.ts';

export const msg91SecretHeader = 'x-webhook-secret';

const text = z.union([z.string(), z.number()]).transform(String);
/** One number's report; the new webhook has words in `status`, where the others have codes and words in `desc`. */
const report = z.object({ requestId: text, status: text, desc: z.string().default('') });
/** Version 2 has the reports of a request below it. */
const request = z.object({
  requestId: text,
  report: z.array(z.object({ status: text, desc: z.string().default('') })),
});

const delivered = new Set(['1']);
/** Failed; do not disturb; rejected; blocked. */
const failed = new Set(['2', '9', '16', '17', '25']);

function stateOf({ status, desc }: { status: string; desc: string }): Receipt['state'] | undefined {
  const words = `${status} ${desc}`;
  if (failed.has(status) || /fail|reject|block|ndnc|undeliver|expired/i.test(words)) return 'failed';
  return delivered.has(status) || /deliver/i.test(words) ? 'delivered' : undefined;
}

/** What was sent, as a list: JSON, or a form whose `data` is JSON. */
function listOf(body: string): unknown[] {
  const form = body.startsWith('data=') ? new URLSearchParams(body).get('data') : null;
  const sent = jsonOf(form ?? body);
  if (typeof sent !== 'object' || sent === null) unreadable();
  return Array.isArray(sent) ? sent : [sent];
}

/** The times of reports have no time zone: when they come counts. @throws WEBHOOK_FORGED, WEBHOOK_UNREADABLE */
export function readMsg91(
  { headers, body }: Callback,
  { secret, now }: { secret: string; now: number },
): Told {
  if (!sameSecret(headers[msg91SecretHeader] ?? '', secret)) forged();
  const list = listOf(body);
  const reports = [
    ...readable(report, list),
    ...readable(request, list).flatMap(({ requestId, report: each }) =>
      each.map((one) => ({ ...one, requestId })),
    ),
  ];
  return told({
    receipts: reports.flatMap((each) => {
      const state = stateOf(each);
      return receipt({
        provider: 'msg91',
        providerMessageId: each.requestId,
        state,
        code: state === 'failed' ? each.status : undefined,
        at: now,
      });
    }),
  });
}
