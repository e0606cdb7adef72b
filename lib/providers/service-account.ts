import { createPrivateKey } from 'node:crypto';
import { z } from 'zod';

const schema = z.object({
  project_id: z.string().min(1),
  client_email: z.string().min(1),
  private_key: z.string().refine(isRsaKey),
  token_uri: z.url(),
});

/** A Google service account: the parts that we use of the JSON key that Google hands out. */
export type ServiceAccount = z.output<typeof schema>;

/** The account in the text of a JSON key; undefined when it is none. */
export function parseServiceAccount(text: string): ServiceAccount | undefined {
  try {
    return schema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

function isRsaKey(pem: string): boolean {
  try {
    return createPrivateKey(pem).asymmetricKeyType === 'rsa';
  } catch {
    return false;
  }
}
