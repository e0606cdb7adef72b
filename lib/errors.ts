import { Errors } from 'moleculer';
import { type ErrorCode, errorCatalogue, type PublicError } from '../contracts/errors.ts';
import { cleanText } from './redact.ts';

/** What may travel with an error: told to the client, so nothing private. */
export interface ErrorDetails {
  fields?: { path: string; message: string }[];
  /** Seconds. */
  retryAfterS?: number;
}

/**
 * A refusal with a code of the catalogue. It is a MoleculerError, so that code and details survive NATS;
 * on the other side it is known by its `type`, not by its class.
 */
export class AppError extends Errors.MoleculerError {
  constructor(code: ErrorCode, details: ErrorDetails = {}) {
    super(errorCatalogue[code].message, errorCatalogue[code].status, code, details);
    this.name = 'AppError';
  }
}

const isCode = (type: unknown): type is ErrorCode =>
  typeof type === 'string' && Object.hasOwn(errorCatalogue, type);

/** Errors of the libraries at the door and of Moleculer, by their `type`, as codes of ours. */
const foreignTypes = new Map<string, ErrorCode>([
  ['entity.too.large', 'PAYLOAD_TOO_LARGE'],
  ['entity.parse.failed', 'BAD_JSON'],
  ['encoding.unsupported', 'BAD_JSON'],
  ['charset.unsupported', 'BAD_JSON'],
  ['request.size.invalid', 'BAD_JSON'],
  ['request.aborted', 'BAD_JSON'],
  ['REQUEST_TIMEOUT', 'TIMEOUT'],
  ['REQUEST_SKIPPED', 'TIMEOUT'],
  ['QUEUE_FULL', 'UNAVAILABLE'],
  ['SERVICE_NOT_FOUND', 'UNAVAILABLE'],
  ['SERVICE_NOT_AVAILABLE', 'UNAVAILABLE'],
  // The node that had the request has died
  ['REQUEST_REJECTED', 'UNAVAILABLE'],
  // NATS is away
  ['BAD_GATEWAY', 'UNAVAILABLE'],
  // moleculer-web: a route without an action, and an action whose node is gone
  ['NOT_FOUND', 'NOT_FOUND'],
  ['SERVICE_UNAVAILABLE', 'UNAVAILABLE'],
  ['UNABLE_DECODE_PARAM', 'VALIDATION'],
  ['ORIGIN_NOT_ALLOWED', 'ORIGIN_REFUSED'],
]);

/**
 * ioredis', the store's and Node's words for a connection that is not there, and Redis' for one that starts, fails over
 * or lacks its replica.
 */
const connectionTrouble =
  /^(MaxRetriesPerRequestError|StoreUnavailableError|ClusterAllFailedError)$|ECONNREFUSED|ECONNRESET|ENOENT.*\.sock|Connection is closed|Command timed out|Command aborted due to connection close|Socket timeout|Stream isn't writeable|Cluster isn't ready|Cluster is ended|None of startup nodes|Too many Cluster redirections|^(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|MOVED|ASK|NOREPLICAS) /;

/** The called action surely did not begin: only then may a call be sent again, since most actions change something. */
export const neverBegan = (error: unknown): boolean =>
  error instanceof Errors.ServiceNotAvailableError ||
  error instanceof Errors.QueueIsFullError ||
  error instanceof Errors.BrokerDisconnectedError;

/** The called action may have begun, but its node has died or says nothing. */
export const lostOnTheWay = (error: unknown): error is Error & { data: { action: string } } =>
  error instanceof Errors.RequestTimeoutError || error instanceof Errors.RequestRejectedError;

/** Is Redis or the DB away, rather than something wrong in here? */
export const isConnectionTrouble = (error: unknown): boolean =>
  typeof error === 'object' &&
  error !== null &&
  'name' in error &&
  'message' in error &&
  (connectionTrouble.test(String(error.name)) || connectionTrouble.test(String(error.message)));

/** The code for any error; INTERNAL for what nobody foresaw. */
function errorCode(error: unknown): ErrorCode {
  if (!(error instanceof Error)) return 'INTERNAL';
  if (!('type' in error)) return isConnectionTrouble(error) ? 'UNAVAILABLE' : 'INTERNAL';
  if (isCode(error.type)) return error.type;
  return (typeof error.type === 'string' && foreignTypes.get(error.type)) || 'INTERNAL';
}

/** An error that came over NATS is a plain one with the fields of ours: it is known by its `type`, not by its class. */
function detailsOf(error: unknown): ErrorDetails {
  if (error instanceof Error && !('type' in error) && isConnectionTrouble(error)) return { retryAfterS: 2 };
  if (!(error instanceof Error && 'type' in error && isCode(error.type) && 'data' in error)) return {};
  const { fields, retryAfterS } = (error.data as ErrorDetails | null | undefined) ?? {};
  return {
    // A path may hold a key that the client made up
    ...(Array.isArray(fields)
      ? {
          fields: fields.map(({ path, message }) => ({ path: cleanText(path), message: cleanText(message) })),
        }
      : {}),
    ...(typeof retryAfterS === 'number' ? { retryAfterS } : {}),
  };
}

/** What a client is told: the catalogue's words, never the error's own, and never a stack. */
export function publicError(error: unknown, requestId?: string): PublicError {
  const code = errorCode(error);
  return {
    code,
    message: errorCatalogue[code].message,
    ...(requestId === undefined ? {} : { requestId }),
    ...detailsOf(error),
  };
}

/** The HTTP status for any error. */
export const errorStatus = (error: unknown): number => errorCatalogue[errorCode(error)].status;
