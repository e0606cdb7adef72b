import { createHmac, createPrivateKey, createPublicKey, verify, X509Certificate } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import twilio from 'twilio';
import { assertionOf } from '../../../lib/providers/google-token.ts';
import { parseServiceAccount } from '../../../lib/providers/service-account.ts';
import { problemOf } from '../../../lib/standins/aws-signature.ts';
import {
  DEVELOPMENT_SENDGRID_WEBHOOK,
  DEVELOPMENT_SERVICE_ACCOUNT,
  DEVELOPMENT_SNS,
} from '../../../lib/standins/development-keys.ts';
import { verifyJws } from '../../../lib/standins/fcm-messages.ts';
import { eventSignature } from '../../../lib/standins/sendgrid-mail.ts';
import { snsSignature } from '../../../lib/standins/ses-emails.ts';
import { twilioSignature } from '../../../lib/standins/twilio-account.ts';
import { hubSignature } from '../../../lib/standins/whatsapp-messages.ts';

describe("the simulated Twilio's signature", () => {
  // https://www.twilio.com/docs/usage/security and the tests of Twilio's own client
  const token = '12345';
  const url = 'https://mycompany.com/myapp.php?foo=1&bar=2';
  const fields = {
    CallSid: 'CA1234567890ABCDE',
    Caller: '+14158675309',
    Digits: '1234',
    From: '+14158675309',
    To: '+18005551212',
  };

  test("is the one that Twilio publishes, and passes Twilio's own check", () => {
    expect(twilioSignature(token, url, fields)).toBe('RSOYDt4T1cUTdK1PDd93/VVr8B8=');
    expect(twilio.validateRequest(token, twilioSignature(token, url, fields), url, fields)).toBe(true);
    expect(twilio.validateRequest('other', twilioSignature(token, url, fields), url, fields)).toBe(false);
  });
});

describe("the simulated Meta's signature", () => {
  test('is the one that is published for the algorithm', () => {
    // https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries (Meta publishes none)
    expect(hubSignature("It's a Secret to Everybody", 'Hello, World!')).toBe(
      'sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17',
    );
    const body = JSON.stringify({ text: 'नमस्ते' });
    expect(hubSignature('s', body)).toBe(
      `sha256=${createHmac('sha256', 's').update(Buffer.from(body, 'utf8')).digest('hex')}`,
    );
  });
});

describe("the simulated SendGrid's signature", () => {
  const verified = (publicKey: string, timestamp: string, body: string, signature: string) =>
    verify(
      'sha256',
      Buffer.from(timestamp + body),
      createPublicKey({ key: Buffer.from(publicKey, 'base64'), format: 'der', type: 'spki' }),
      Buffer.from(signature, 'base64'),
    );

  test('is of the kind that SendGrid publishes', () => {
    // The vector of https://github.com/sendgrid/sendgrid-nodejs, packages/eventwebhook
    const body = `${JSON.stringify([
      {
        email: 'hello@world.com',
        event: 'dropped',
        reason: 'Bounced Address',
        sg_event_id: 'ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA',
        sg_message_id: 'LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0',
        'smtp-id': '<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>',
        timestamp: 1600112492,
      },
    ])}\r\n`;
    const publicKey =
      'MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==';
    const signature =
      'MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM=';
    expect(verified(publicKey, '1600112502', body, signature)).toBe(true);
    const ours = eventSignature(
      createPrivateKey(DEVELOPMENT_SENDGRID_WEBHOOK.privateKey),
      '1600112502',
      body,
    );
    expect(verified(DEVELOPMENT_SENDGRID_WEBHOOK.publicKey, '1600112502', body, ours)).toBe(true);
    expect(verified(DEVELOPMENT_SENDGRID_WEBHOOK.publicKey, '1600112503', body, ours)).toBe(false);
  });
});

describe("the simulated SNS's signature", () => {
  test.each([
    ['1', 'sha1'],
    ['2', 'sha256'],
  ] as const)('version %s can be checked with the certificate that it names', (version, hash) => {
    const fields = { Type: 'Notification', Message: 'hello', MessageId: 'm', Timestamp: 't', TopicArn: 'a' };
    const signature = snsSignature(createPrivateKey(DEVELOPMENT_SNS.privateKey), version, fields);
    // https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message-verify-message-signature.html
    const signed = 'Message\nhello\nMessageId\nm\nTimestamp\nt\nTopicArn\na\nType\nNotification\n';
    const { publicKey } = new X509Certificate(DEVELOPMENT_SNS.certificate);
    expect(verify(hash, Buffer.from(signed), publicKey, Buffer.from(signature, 'base64'))).toBe(true);
  });
});

describe('a request to the simulated AWS', () => {
  // AWS's Signature Version 4 test suite (aws-sig-v4-test-suite)
  const credentials = {
    accessKeyId: 'AKIDEXAMPLE',
    secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY',
  };
  const request = (
    signature: string,
    { method = 'GET', query = '', signed = 'host;x-amz-date', more = {}, body = '' } = {},
  ) => ({
    method,
    path: '/',
    query: new URLSearchParams(query),
    headers: {
      host: 'example.amazonaws.com',
      'x-amz-date': '20150830T123600Z',
      authorization: `AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=${signed}, Signature=${signature}`,
      ...more,
    },
    body,
    now: new Date('2015-08-30T12:36:00Z'),
  });
  const vanilla = '5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31';

  test.each([
    ['get-vanilla', vanilla, {}],
    [
      'get-vanilla-query-order-key-case',
      'b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500',
      { query: 'Param2=value2&Param1=value1' },
    ],
    ['post-vanilla', '5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b', { method: 'POST' }],
    [
      'post-x-www-form-urlencoded',
      'ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a',
      {
        method: 'POST',
        signed: 'content-type;host;x-amz-date',
        more: { 'content-type': 'application/x-www-form-urlencoded' },
        body: 'Param1=value1',
      },
    ],
  ])('is taken as AWS publishes it: %s', (_, signature, change) => {
    expect(problemOf(request(signature, change), credentials, 'service')).toBeUndefined();
  });

  test.each([
    ['SignatureDoesNotMatch', { body: 'changed' }],
    ['SignatureDoesNotMatch', { method: 'PUT' }],
    ['SignatureDoesNotMatch', { more: { host: 'elsewhere' } }],
    ['MissingAuthenticationTokenException', { more: { authorization: undefined } }],
    ['IncompleteSignature', { more: { authorization: 'AWS4-HMAC-SHA256 nonsense' } }],
    ['IncompleteSignature', { more: { 'x-amz-date': 'now' } }],
    ['IncompleteSignature', { signed: 'x-amz-date' }],
  ])('is refused with %s: %j', (problem, change) => {
    expect(problemOf(request(vanilla, change), credentials, 'service')).toBe(problem);
  });

  test('is refused when it is late, of somebody else, or for another service', () => {
    const late = { ...request(vanilla), now: new Date('2015-08-30T12:42:00Z') };
    expect(problemOf(late, credentials, 'service')).toBe('RequestExpired');
    expect(problemOf(request(vanilla), { ...credentials, accessKeyId: 'x' }, 'service')).toBe(
      'InvalidClientTokenId',
    );
    expect(problemOf(request(vanilla), credentials, 'ses')).toBe('SignatureDoesNotMatch');
  });
});

describe('an assertion to the simulated Google', () => {
  test('is checked as RFC 7515, appendix A.2, has it', () => {
    const key = createPublicKey({
      format: 'jwk',
      key: {
        kty: 'RSA',
        n: 'ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ',
        e: 'AQAB',
      },
    });
    const signed =
      'eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ';
    const signature =
      'cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw';
    expect(verifyJws(signed, signature, key)).toBe(true);
    expect(verifyJws(`${signed}x`, signature, key)).toBe(false);
  });

  test('is what our client makes', () => {
    const [header = '', claims = '', signature = ''] = assertionOf(
      DEVELOPMENT_SERVICE_ACCOUNT,
      1_700_000_000_999,
    ).split('.');
    const key = createPublicKey(DEVELOPMENT_SERVICE_ACCOUNT.private_key);
    expect(verifyJws(`${header}.${claims}`, signature, key)).toBe(true);
    expect(JSON.parse(Buffer.from(claims, 'base64url').toString())).toEqual({
      iss: DEVELOPMENT_SERVICE_ACCOUNT.client_email,
      scope: 'https://www.googleapis.com/auth/firebase.messaging',
      aud: 'https://oauth2.googleapis.com/token',
      iat: 1_700_000_000,
      exp: 1_700_003_600,
    });
  });
});

describe('parseServiceAccount', () => {
  test('takes the JSON key that Google hands out', () => {
    const key = { type: 'service_account', private_key_id: 'x', ...DEVELOPMENT_SERVICE_ACCOUNT };
    expect(parseServiceAccount(JSON.stringify(key))).toEqual(DEVELOPMENT_SERVICE_ACCOUNT);
  });

  test.each([
    ['no JSON', '{'],
    ['a key that is none', JSON.stringify({ ...DEVELOPMENT_SERVICE_ACCOUNT, private_key: 'x' })],
    [
      'a key of another kind',
      JSON.stringify({
        ...DEVELOPMENT_SERVICE_ACCOUNT,
        private_key: DEVELOPMENT_SENDGRID_WEBHOOK.privateKey,
      }),
    ],
    ['no project', JSON.stringify({ ...DEVELOPMENT_SERVICE_ACCOUNT, project_id: '' })],
  ])('refuses %s', (_, text) => {
    expect(parseServiceAccount(text)).toBeUndefined();
  });
});
