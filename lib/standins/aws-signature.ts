/**
 * AWS Signature Version 4 of a request that came in, checked as AWS does.
 *
 * Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { ProviderRequest } from './protocol.ts';

export interface AwsCredentials {
  accessKeyId: string;
  secretAccessKey: string;
}

/** Why a request is refused, by AWS's own name for it. */
export type SignatureProblem =
  | 'MissingAuthenticationTokenException'
  | 'IncompleteSignature'
  | 'InvalidClientTokenId'
  | 'RequestExpired'
  | 'SignatureDoesNotMatch';

const ALGORITHM = 'AWS4-HMAC-SHA256';
const AUTHORIZATION =
  /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([\w-]+)\/([\w-]+)\/aws4_request, *SignedHeaders=([\w;-]+), *Signature=([0-9a-f]{64})$/;

/** How far a signature's time may be from AWS's. */
const MAX_SKEW_MS = 5 * 60_000;

/** What is wrong with a request's signature for `service`; undefined when nothing is. */
export function problemOf(
  request: ProviderRequest,
  { accessKeyId, secretAccessKey }: AwsCredentials,
  service: string,
): SignatureProblem | undefined {
  const { authorization, 'x-amz-date': amzDate } = request.headers;
  if (!authorization) return 'MissingAuthenticationTokenException';
  const [, keyId = '', day = '', region = '', forService = '', signedHeaders = '', signature = ''] =
    AUTHORIZATION.exec(authorization) ?? [];
  const at = timeOf(amzDate);
  if (!signature || at === undefined || typeof amzDate !== 'string' || !signsEnough(signedHeaders))
    return 'IncompleteSignature';
  if (keyId !== accessKeyId) return 'InvalidClientTokenId';
  if (forService !== service || !amzDate.startsWith(day)) return 'SignatureDoesNotMatch';
  if (Math.abs(request.now.getTime() - at) > MAX_SKEW_MS) return 'RequestExpired';

  const scope = `${day}/${region}/${service}/aws4_request`;
  const toSign = [ALGORITHM, amzDate, scope, sha256(canonical(request, signedHeaders))].join('\n');
  const key = [day, region, service, 'aws4_request'].reduce<Buffer | string>(
    (secret, part) => hmac(secret, part),
    `AWS4${secretAccessKey}`,
  );
  const expected = hmac(key, toSign);
  return timingSafeEqual(expected, Buffer.from(signature, 'hex')) ? undefined : 'SignatureDoesNotMatch';
}

/** AWS wants the host and every header of its own signed. */
const signsEnough = (signedHeaders: string) => signedHeaders.split(';').includes('host');

function canonical({ method, path, query, headers, body }: ProviderRequest, signedHeaders: string): string {
  const headerLines = signedHeaders
    .split(';')
    .map(
      (name) =>
        `${name}:${String(headers[name] ?? '')
          .trim()
          .replace(/ +/g, ' ')}\n`,
    )
    .join('');
  const queryLine = [...query]
    .map(([name, value]) => `${encode(name)}=${encode(value)}`)
    .toSorted()
    .join('&');
  // Each part of the path is encoded once more, on top of how it was sent
  const pathLine = path.split('/').map(encode).join('/');
  return [method, pathLine, queryLine, headerLines, signedHeaders, sha256(body)].join('\n');
}

/** RFC 3986: all but unreserved characters. */
function encode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** `20150830T123600Z` in ms. */
function timeOf(amzDate: string | string[] | undefined): number | undefined {
  const [, year, month, day, hour, minute, second] =
    /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(String(amzDate)) ?? [];
  if (!year) return undefined;
  return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
}

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
const hmac = (key: Buffer | string, text: string) => createHmac('sha256', key).update(text).digest();
