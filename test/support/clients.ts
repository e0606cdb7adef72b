import { io, type Socket } from 'socket.io-client';
import type {
  AdminClientToServer,
  AdminServerToClient,
  ClientToServer,
  ServerToClient,
  ShareServerToClient,
} from '../../contracts/socket.ts';
import { eventually } from './eventually.ts';
import type { System } from './system.ts';

/** Where a system is reached. */
export type Doors = Pick<System, 'apiUrl' | 'socketUrl'>;

/** What a REST call answered; `body` is parsed JSON, or null when there was none. */
export interface Answer {
  status: number;
  headers: Headers;
  body: ReturnType<typeof JSON.parse>;
}

/** A client of the REST door. `body`: an object is sent as JSON, a string as it is. */
export async function request(
  system: Doors,
  method: string,
  path: string,
  options: { body?: unknown; token?: string | undefined; headers?: Record<string, string> } = {},
): Promise<Answer> {
  const { body, token } = options;
  const response = await fetch(system.apiUrl + path, {
    method,
    headers: {
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...options.headers,
    },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: text === '' ? null : JSON.parse(text) };
}

export interface User {
  id: string;
  token: string;
  role: string;
  phone: string;
}

let counter = 0;
/** A valid Indian mobile number that no other test of this process uses. */
export const newPhone = (): string =>
  `+9198${String(10_000_000 + ++counter + (process.pid % 1000) * 10_000).slice(-8)}`;

/** The newest code that was sent to a number. */
export function sentCode(system: Doors, phone: string, olderThan = 0): Promise<string> {
  return eventually(async () => {
    const { body } = await request(system, 'GET', `/dev/outbox?to=${encodeURIComponent(phone)}`);
    const message = body.messages[0];
    const code: string | undefined = /\d{4,8}/.exec(message?.text ?? '')?.[0];
    if (!code || body.messages.length <= olderThan) throw new Error('No code was sent yet');
    return code;
  });
}

/** Signs in as a person would: asks for a code, reads it from the outbox, uses it. */
export async function signIn(system: Doors, phone = newPhone()): Promise<User> {
  await request(system, 'POST', '/api/v1/auth/otp', { body: { phone } });
  const code = await sentCode(system, phone);
  const { status, body } = await request(system, 'POST', '/api/v1/auth/login', {
    body: { phone, code, deviceId: 'test', name: 'Asha' },
  });
  if (status !== 200) throw new Error(`Sign-in answered ${status} ${JSON.stringify(body)}`);
  return { id: body.user.id, role: body.user.role, token: body.token, phone };
}

export async function signInDriver(system: Doors): Promise<User> {
  const user = await signIn(system);
  await request(system, 'POST', '/api/v1/me/driver', {
    token: user.token,
    body: { vehicle: { plate: 'KA01AB1234', model: 'Dzire' } },
  });
  return { ...user, role: 'driver' };
}

export const aracaju = { lat: -10.939341, lng: -37.062742 };

export async function bookTrip(system: Doors, rider: User): Promise<string> {
  const { body } = await request(system, 'POST', '/api/v1/bookings', {
    token: rider.token,
    body: { from: aracaju, to: { lat: -10.9, lng: -37.05 }, departAt: new Date().toISOString() },
  });
  return body.id;
}

/** A trip that is under way, with its two people. */
export async function activeTrip(system: Doors): Promise<{ tripId: string; rider: User; driver: User }> {
  const [rider, driver] = await Promise.all([signIn(system), signInDriver(system)]);
  const bookingId = await bookTrip(system, rider);
  const accepted = await request(system, 'POST', `/api/v1/bookings/${bookingId}/accept`, {
    token: driver.token,
  });
  await request(system, 'POST', `/api/v1/trips/${accepted.body.id}/start`, { token: driver.token });
  return { tripId: accepted.body.id, rider, driver };
}

export type ClientSocket = Socket<ServerToClient, ClientToServer>;
export type AdminSocket = Socket<AdminServerToClient, AdminClientToServer>;
export type ShareSocket = Socket<ShareServerToClient, Record<string, never>>;

/** A real socket.io-client; rejects with the server's refusal. `prepare` listens before anything can be missed. */
function connectTo<S extends Socket>(
  url: string,
  auth: Record<string, unknown>,
  prepare: (socket: S) => void = () => undefined,
): Promise<S> {
  const socket = io(url, {
    auth,
    transports: ['websocket'],
    reconnection: false,
    forceNew: true,
  }) as S;
  prepare(socket);
  return new Promise((resolve, reject) => {
    socket.once('connect', () => resolve(socket));
    socket.once('connect_error', (error) => {
      socket.close();
      reject(error);
    });
  });
}

export const connectSocket = (system: Doors, token: string | undefined): Promise<ClientSocket> =>
  connectTo(system.socketUrl, { token });

export const connectAdmin = (system: Doors, token: string | undefined): Promise<AdminSocket> =>
  connectTo(`${system.socketUrl}/admin`, { token });

export const connectShare = (
  system: Doors,
  share: unknown,
  prepare?: (socket: ShareSocket) => void,
): Promise<ShareSocket> => connectTo(`${system.socketUrl}/share`, { share }, prepare);
