/** The few REST calls that a simulated rider and driver make. */
import { z } from 'zod';
import { type Clock, pause } from './clock.ts';

const REQUEST_TIMEOUT_MS = 15_000;
/** Tries of a request that is answered 429. */
const ATTEMPTS = 5;
/** The longest wait that a 429 may ask for, s: an OTP resend asks for 30. */
const MAX_RETRY_AFTER_S = 60;
const OTP_WAIT_MS = 20_000;
const OTP_POLL_MS = 150;

const outbox = z.object({ messages: z.array(z.object({ id: z.string(), text: z.string() })) });
const login = z.object({ token: z.string() });
const withId = z.object({ id: z.string() });
const refusal = z.object({ error: z.object({ code: z.string(), message: z.string() }) });

interface Place {
  lat: number;
  lng: number;
}

export interface Login {
  /** E.164 */
  phone: string;
  deviceId: string;
  name: string;
}

/** All of them reject with an error that names the request and what was answered. */
export interface Api {
  /** Signs up or in by the code in the development outbox; answers with the token. */
  signIn(who: Login, signal?: AbortSignal): Promise<string>;
  becomeDriver(token: string, vehicle: { plate: string; model: string }, signal?: AbortSignal): Promise<void>;
  /** `departAt` in ISO 8601; answers with the booking's id. */
  book(
    token: string,
    booking: { from: Place; to: Place; departAt: string },
    signal?: AbortSignal,
  ): Promise<string>;
  /** Answers with the trip's id. */
  accept(token: string, bookingId: string, signal?: AbortSignal): Promise<string>;
  move(token: string, tripId: string, step: 'start' | 'end' | 'cancel', signal?: AbortSignal): Promise<void>;
}

export interface ApiOptions {
  /** The root of the API: `/api/v1` and `/dev` are below it. */
  url: string;
  clock: Clock;
  fetch: (url: string, init: RequestInit) => Promise<Response>;
}

interface Request {
  method?: 'GET' | 'POST';
  token?: string;
  body?: object;
  signal?: AbortSignal | undefined;
}

/** A client of the API at `url`. */
export function createApi({ url, clock, fetch }: ApiOptions): Api {
  async function request(path: string, options: Request): Promise<unknown> {
    const { method = 'POST', token, body, signal } = options;
    const headers: Record<string, string> = {};
    if (token !== undefined) headers['authorization'] = `Bearer ${token}`;
    if (body !== undefined) headers['content-type'] = 'application/json';
    for (let attempt = 1; ; attempt += 1) {
      const timeout = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
      const init: RequestInit = {
        method,
        headers,
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      };
      if (body !== undefined) init.body = JSON.stringify(body);
      const response = await fetch(url + path, init).catch((error: unknown) => {
        signal?.throwIfAborted();
        throw new Error(`${method} ${path}: no answer from ${url} (${reason(error)})`, { cause: error });
      });
      const text = await response.text();
      if (response.ok) return text === '' ? null : parse(text, `${method} ${path}`);
      const waitS = retryAfterS(response);
      if (response.status !== 429 || attempt === ATTEMPTS || waitS > MAX_RETRY_AFTER_S) {
        throw new Error(`${method} ${path}: ${response.status} ${refusalOf(text)}`);
      }
      await pause(clock, waitS * 1000, signal);
    }
  }

  async function messagesTo(phone: string, signal: AbortSignal | undefined) {
    const path = `/dev/outbox?to=${encodeURIComponent(phone)}`;
    return outbox.parse(await request(path, { method: 'GET', signal })).messages;
  }

  /** The code of the first message that was not there before; ids rather than times, as clocks may differ. */
  async function newCode(phone: string, known: ReadonlySet<string>, signal: AbortSignal | undefined) {
    const deadline = clock.now() + OTP_WAIT_MS;
    while (clock.now() < deadline) {
      const newest = (await messagesTo(phone, signal)).find(({ id }) => !known.has(id));
      const code = newest && /(?<!\d)\d{4,8}(?!\d)/.exec(newest.text)?.[0];
      if (code) return code;
      await pause(clock, OTP_POLL_MS, signal);
    }
    throw new Error(`No code for a login came to /dev/outbox in ${OTP_WAIT_MS / 1000} s`);
  }

  return {
    async signIn({ phone, deviceId, name }, signal) {
      const known = new Set((await messagesTo(phone, signal)).map(({ id }) => id));
      await request('/api/v1/auth/otp', { body: { phone }, signal });
      const code = await newCode(phone, known, signal);
      const body = { phone, code, deviceId, name };
      return login.parse(await request('/api/v1/auth/login', { body, signal })).token;
    },
    async becomeDriver(token, vehicle, signal) {
      await request('/api/v1/me/driver', { token, body: { vehicle }, signal });
    },
    async book(token, body, signal) {
      return withId.parse(await request('/api/v1/bookings', { token, body, signal })).id;
    },
    async accept(token, bookingId, signal) {
      return withId.parse(await request(`/api/v1/bookings/${bookingId}/accept`, { token, signal })).id;
    },
    async move(token, tripId, step, signal) {
      await request(`/api/v1/trips/${tripId}/${step}`, { token, signal });
    },
  };
}

/** `Retry-After` as seconds; a second where it is missing or a date. */
function retryAfterS(response: Response): number {
  const seconds = Number(response.headers.get('retry-after') ?? Number.NaN);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds : 1;
}

function parse(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${what}: the answer is not JSON`, { cause: error });
  }
}

function refusalOf(text: string): string {
  try {
    const { error } = refusal.parse(JSON.parse(text));
    return `${error.code}: ${error.message}`;
  } catch {
    // Not one of the API's own errors, a proxy's page perhaps: its beginning says more than nothing.
    return text.slice(0, 200);
  }
}

/** fetch says only "fetch failed"; what failed is in the cause. By its fields, since in a test it may be of another realm. */
function reason(error: unknown): string {
  const { message, cause } = Object(error) as { message?: unknown; cause?: unknown };
  const { message: why, name } = Object(cause) as { message?: unknown; name?: unknown };
  return String(why || name || message || error);
}
