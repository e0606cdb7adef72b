import { randomUUID } from 'node:crypto';
import type { PublicError } from '../../contracts/errors.ts';
import { type ClientEvent, clientEvents, neverRefused } from '../../contracts/socket.ts';
import { AppError, publicError } from '../../lib/errors.ts';
import type { Caller } from '../../lib/permissions.ts';
import { isHostile, parseOrRefuse } from '../../lib/validate.ts';
import { type ClientSocket, type GatewayParts, handlers } from './socket-handlers.ts';
import { usualUpdate } from './usual-update.ts';

type Answer = (answer: object) => void;
const isAnswer = (value: unknown): value is Answer => typeof value === 'function';
const isKnown = (event: unknown): event is ClientEvent =>
  typeof event === 'string' && Object.hasOwn(clientEvents, event);

/** What a socket sent: an event, its payload, where the answer goes if one was asked for, and its size in bytes. */
interface Packet {
  event: unknown;
  payload: unknown;
  answer: unknown;
  bytes: number;
}

export interface AnswerOptions {
  parts: GatewayParts;
  /** True when there is too much to do for this event. */
  sheds(event: string): boolean;
  /** Larger messages are refused with PAYLOAD_TOO_LARGE. */
  maxBytes: number;
  /** Whose session it is; SESSION_STORE_UNAVAILABLE while nobody can say, UNAUTHENTICATED when it has ended. */
  resolve(token: string): Promise<Caller>;
  /** For counting and logging; `event` is `unknown` for what is not in the contract. INTERNAL has an id to find it by. */
  onRefused(event: ClientEvent | 'unknown', refusal: PublicError, error: unknown): void;
}

/** Taken at any rate and in any shape, as far as it is not too large: presses coalesce, and what is unreadable is dropped. */
const takenAnyway: ReadonlySet<unknown> = new Set(neverRefused);
const isNeverRefused = (event: unknown): event is ClientEvent => takenAnyway.has(event);

/** Made once: it is sent when there is no time. */
const tooMuch = publicError(new AppError('UNAVAILABLE', { retryAfterS: 2 }));

const isOfSos = (event: unknown): boolean => typeof event === 'string' && event.startsWith('sos:');
/** Shed with the rest, "I am safe" would become a flood of alarms just when there is too much to do. */
const isUrgent = (event: unknown): boolean => isOfSos(event) || event === 'safety:answer';

/** Limits first, then the event, then keys that nobody honest sends. */
function admit(socket: ClientSocket, { event, payload, bytes }: Packet, options: AnswerOptions): ClientEvent {
  if (isNeverRefused(event) && bytes <= options.maxBytes) return event;
  if (!socket.data.bucket.take(options.parts.now())) throw new AppError('RATE_LIMITED', { retryAfterS: 1 });
  if (bytes > options.maxBytes) throw new AppError('PAYLOAD_TOO_LARGE');
  if (!isKnown(event)) throw new AppError('UNKNOWN_EVENT');
  if (isHostile(payload)) throw new AppError('VALIDATION');
  return event;
}

function dispatch(
  socket: ClientSocket,
  event: ClientEvent,
  payload: unknown,
  parts: GatewayParts,
): object | Promise<object> {
  // Positions are nearly all that comes
  const usual = event === 'location:update' ? usualUpdate(payload) : null;
  const parsed =
    usual ??
    parseOrRefuse(
      clientEvents[event],
      isNeverRefused(event) && isHostile(payload) ? {} : payload,
      event === 'location:update' ? 'LOCATION_INVALID' : 'VALIDATION',
    );
  // The schema was picked by the same name as the handler; TypeScript cannot tie the two
  const handler = handlers[event] as (
    parts: GatewayParts,
    socket: ClientSocket,
    payload: unknown,
  ) => object | Promise<object>;
  return handler(parts, socket, parsed);
}

/** A refused location update that asked for no acknowledgement is told by an event. */
function tellRefused(socket: ClientSocket, payload: unknown, error: PublicError): void {
  const { tripId, timestamp }: Record<string, unknown> =
    typeof payload === 'object' && payload !== null ? { ...payload } : {};
  socket.emit('location:refused', {
    tripId: typeof tripId === 'string' ? tripId.slice(0, 64) : null,
    timestamp: typeof timestamp === 'number' ? timestamp : null,
    error,
  });
}

/** Answers everything that the socket sends, with what was asked for or with a coded refusal. Nothing else listens. */
export function answerEvents(socket: ClientSocket, options: AnswerOptions): void {
  let received = 0;
  // Sizes are known to the engine only; it hands an event on with its last packet, binary parts come before it
  socket.conn.on('packet', ({ data }: { data?: unknown }) => {
    received += typeof data === 'string' || Buffer.isBuffer(data) ? Buffer.byteLength(data) : 0;
  });

  let asking: Promise<Caller> | undefined;
  /** Let in while nobody could say whether the session is good, for an SOS alone: for anything else it is asked now. */
  const untilKnown = async (): Promise<void> => {
    asking ??= options.resolve(socket.data.token).finally(() => (asking = undefined));
    socket.data.caller = await asking;
  };

  const accept = ({ answer }: Packet, result: object): void => {
    if (isAnswer(answer)) answer({ ok: true, ...result });
  };
  const refuse = ({ event, payload, answer }: Packet, error: unknown): void => {
    const told = publicError(error);
    const refusal = told.code === 'INTERNAL' ? { ...told, requestId: randomUUID() } : told;
    options.onRefused(isKnown(event) ? event : 'unknown', refusal, error);
    if (isAnswer(answer)) answer({ ok: false, error: refusal });
    else if (event === 'location:update') tellRefused(socket, payload, refusal);
  };

  const respond = (packet: Packet): void => {
    try {
      const admitted = admit(socket, packet, options);
      const mustAsk = socket.data.caller.standing === 'unknown' && !isOfSos(admitted);
      const work = () => dispatch(socket, admitted, packet.payload, options.parts);
      const result: object | Promise<object> = mustAsk ? untilKnown().then(work) : work();
      // Most are positions of known drivers, which nothing is waited for
      if (!(result instanceof Promise)) accept(packet, result);
      else
        result
          .then((answered: object) => accept(packet, answered))
          .catch((error: unknown) => refuse(packet, error));
    } catch (error) {
      refuse(packet, error);
    }
  };

  // No `next`: the packet ends here
  socket.use((packet) => {
    const bytes = received;
    received = 0;
    const [event, ...args]: unknown[] = packet;
    const answer = args.at(-1);
    const payload = args.length > (isAnswer(answer) ? 1 : 0) ? args[0] : undefined;
    if (!isUrgent(event) && options.sheds(isKnown(event) ? event : 'unknown')) {
      if (isAnswer(answer)) answer({ ok: false, error: tooMuch });
      else if (event === 'location:update') tellRefused(socket, payload, tooMuch);
      return;
    }
    respond({ event, payload, answer, bytes });
  });
}
