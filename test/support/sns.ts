/** An SNS of the tests' own: its key, its certificate, and messages as it signs them. The key protects nothing. */
import { createSign, type KeyObject, X509Certificate } from 'node:crypto';

export const topicArn = 'arn:aws:sns:ap-south-1:123456789012:ses-events';
export const certificateUrl =
  'https://sns.ap-south-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem';

export const certificate = `-----BEGIN CERTIFICATE-----
MIIDCTCCAfGgAwIBAgIUOqKN19QWpTTzOAIQEXGC8Hp+17wwDQYJKoZIhvcNAQEL
BQAwEzERMA8GA1UEAwwIc25zLnRlc3QwIBcNMjYxMTI0MjA1NTI5WhgPMjEyNjEw
MzEyMDU1MjlaMBMxETAPBgNVBAMMCHNucy50ZXN0MIIBIjANBgkqhkiG9w0BAQEF
AAOCAQ8AMIIBCgKCAQEA2rhK2Rmc1NBwEpNVzA0lbqoYvuwfP4A+txRdt/HdJeNS
mXHy6E42CYb0P4CWAj3j2mtYZMEpSoAf+57uJiIcrDXyFgz8tLbF97jQM9HGWh6S
dVIqx/lZv5Nqd9hGhDv6FCCxpYFerxo7+0cHvrclzuazXVplPq1YQoflgRXds9++
WdTqYQ5Kx9IXUzsFiyShWOa1k99GKevQglonYXTgEH+Q02sNbRBXlsklf+ZtrJ6m
Rma1LeHwsM5sJy0lIqDMMB1adgy2wsbOIse3vDzNBh40mypRK4uEwJ5ZPHrRtfxX
ynNouW6jH9M+GeTM+uRHu4PLM1bJnAfrkzeKbtx04wIDAQABo1MwUTAdBgNVHQ4E
FgQUFcXPt7/Ov4rRKnMQXGq73XK3sSUwHwYDVR0jBBgwFoAUFcXPt7/Ov4rRKnMQ
XGq73XK3sSUwDwYDVR0TAQH/BAUwAwEB/zANBgkqhkiG9w0BAQsFAAOCAQEASbHy
wqXuUK0pMGRwkAqrWqP3j9UHNdlXZ6LSi2q2/Jv5scOUXlp3Ba/0gyTZuFeztRb5
wvSgSqeWGypSk3XdfxTrlu95ZnoDRxAK548tcioy0AnHSRcbm6QuGaHktUuxVPRR
Z10sVZHoQHTwx+frbxEHMdm3vtt4ilrlAI0BOHMLTslS79nE6R/aPQKrV94uOAlX
xV48Xlsy2n3slZRavEutaVQQfaVsPZC1JPtmqT52ApTyKA14vxWmUNms0Egl/eV5
VvMVuwFNGH1qI9X1le5uRao6llfdYbCHHj36j6Kexc2KJx/wNA8Pt2oBDdJyL5a7
BikfIAnOp+/HqrP/aA==
-----END CERTIFICATE-----`;
export const certificateKey = (): KeyObject => new X509Certificate(certificate).publicKey;

const privateKey = `-----BEGIN PRIVATE KEY-----
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDauErZGZzU0HAS
k1XMDSVuqhi+7B8/gD63FF238d0l41KZcfLoTjYJhvQ/gJYCPePaa1hkwSlKgB/7
nu4mIhysNfIWDPy0tsX3uNAz0cZaHpJ1UirH+Vm/k2p32EaEO/oUILGlgV6vGjv7
Rwe+tyXO5rNdWmU+rVhCh+WBFd2z375Z1OphDkrH0hdTOwWLJKFY5rWT30Yp69CC
WidhdOAQf5DTaw1tEFeWySV/5m2snqZGZrUt4fCwzmwnLSUioMwwHVp2DLbCxs4i
x7e8PM0GHjSbKlEri4TAnlk8etG1/FfKc2i5bqMf0z4Z5Mz65Ee7g8szVsmcB+uT
N4pu3HTjAgMBAAECggEAIR6vFtjuCrvVfLqaz19eP7e6L48J3E/LL2YCGwyg9E/L
/jhnFA5j2GV7LvKFxKkii7ydkgQ+AG4OacfTQCsCNIGmuvgUfDkBGVX/ERm+836V
pvZeTBHSKVRlVuiFJRj/8XRR8kH42IMcehxza8nIC+CbYJODqU4Og2SYuEdbXxVG
z815bFoLOREMFKd5mfT6pUvrzzA+wBRw/HPwiNtOGgZ4rx50vgjBxNU+gxGcHBXg
1NBPeIkperHOq866zgW3FdR41Ka814fqzbfK8RL+p6jHjxjlTqQq31uP2++2RBpV
qKQ13WXKiR+pGiFnCY8+Q/DgNKh7ePo+bJ/KRWveIQKBgQDs6BbLoVn5HjLUY8z+
GrJkrjrD8kiR23Lq09uX34DcR5CSz03oh6YWWlOtl6fuuB+WIar2fF4Skmx68qvO
qDjOhoEbSMCOaYPQIYOcOOwmE7d17eEupjuo/wJpat0rJ8gE4ZjzWZqkfi/6gyBk
e4VIthJEBtzOhMzChjMc4t38HwKBgQDsWPiYC945BkZJfsOdH2FMmf4nNO8vtNoR
t9w58ogB/xcqCOHrg1n08SjsMA6jv4L13YG/fz+B+piYN/ozyfKkURb3pC1EWzPd
+cUSGc+TYGkI+QLbIRUBHwf9qI9ATgIhgsGGxV7HdLIrFow+8OsFivxpAR8SedS2
wIAsnNxuvQKBgBg3RRU9gf/n6VQye2LCAdguww0CeA6Iuv9r9ndYvkhF/G41SIZr
Tzvbsc/9v4m0Qm5LNLmLTuZhFzueEJfIND5QG2RZlG06NeIReu1+GA1wWIFydmEZ
VuHYZzu1U7Q0lcqB8Ot3DkqgJ3FY8/exdJdRHR7dALcPdgqwQwtB2WULAoGAODKD
kauowEhkqA8TNiYC/bLUAsCMavyGqZXdMI4hls/v0xffmB9YYWyCPX7DzF26Jvnv
Yvg/wokyhWcx/+Rx5G4/lsyb0tgYwhwkpsQqXjGbZ/3FlxMLqoOVY9QTk8e4q/0q
RQBjI+v0fVhUKpcgWuYMVG9m0v7S/E1TbMgzhcUCgYEA2VxcKjW3PEDz+5oXA6MK
BNTidsbFQShrzTrKgpaw+V8z9mwW0O/+Tw5X8lpDmGdGs6QFPjoDY/609GIrNh3D
ScwWYArA34U+rwaLI2Msh4fXzTJTxqqZHWpp0OR9jFKJL/R4ZQUKHhNJKL2tHq3/
N1xHQ0uY6Kzn+SlHVU5qAsA=
-----END PRIVATE KEY-----`;

/** In the order of AWS' documentation, by what kind of message it is. */
const signed = (message: Record<string, string>) =>
  message['Type'] === 'Notification'
    ? ['Message', 'MessageId', 'Subject', 'Timestamp', 'TopicArn', 'Type']
    : ['Message', 'MessageId', 'SubscribeURL', 'Timestamp', 'Token', 'TopicArn', 'Type'];

/** A body as SNS posts it; `fields` go over what is usual. */
export function snsBody(fields: Record<string, string>, version: '1' | '2' = '2'): string {
  const message: Record<string, string> = {
    Type: 'Notification',
    MessageId: '22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324',
    TopicArn: topicArn,
    Message: '{}',
    Timestamp: new Date().toISOString(),
    SigningCertURL: certificateUrl,
    ...fields,
  };
  const signer = createSign(version === '1' ? 'RSA-SHA1' : 'RSA-SHA256');
  for (const name of signed(message))
    if (message[name] !== undefined) signer.update(`${name}\n${message[name]}\n`);
  return JSON.stringify({
    ...message,
    SignatureVersion: version,
    Signature: signer.sign(privateKey, 'base64'),
  });
}
