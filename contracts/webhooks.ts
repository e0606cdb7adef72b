import { z } from 'zod';
import { mayRefuse, nothing } from './common.ts';

/** A provider's request as it came: who speaks is known by its signature alone. */
const callback = z.object({
  /** As the outside sees it, with its query. */
  url: z.string().max(16_384),
  /** Those that begin with `x-`, in lower case. */
  headers: z.record(z.string(), z.string()),
  /** As it is signed. */
  body: z.string().max(4 * 1024 * 1024),
});

const told = {
  params: callback,
  result: nothing,
  errors: mayRefuse('WEBHOOK_FORGED', 'WEBHOOK_UNREADABLE'),
};
const timed = { ...told, errors: mayRefuse('WEBHOOK_FORGED', 'WEBHOOK_TOO_OLD', 'WEBHOOK_UNREADABLE') };

/** What providers call. Each is answered once what it tells is durably handed on: if it cannot be, with 503, and they repeat it. */
export const webhooks = {
  description:
    'What providers of messages call back: how far messages have come, and who wants no more of them.',
  actions: {
    twilioStatus: { summary: 'Twilio tells how far an SMS has come.', ...told },
    twilioInbound: { summary: 'Twilio passes on a text that somebody sent to us (STOP, START).', ...told },
    whatsappHandshake: {
      summary: 'Meta asks whether this is our webhook; the answer is the challenge that it sent.',
      params: callback,
      result: z.string(),
      errors: mayRefuse('WEBHOOK_FORGED'),
    },
    whatsapp: { summary: 'WhatsApp tells how far messages have come, and what people write to us.', ...told },
    sendgrid: { summary: 'SendGrid tells what became of emails.', ...timed },
    msg91: { summary: 'MSG91 tells what became of SMS.', ...told },
    ses: { summary: 'Amazon SES tells by SNS what became of emails.', ...timed },
  },
  events: {},
};
