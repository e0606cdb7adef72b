/** What the simulator needs of a socket, and that over Socket.IO; tests bring their own. */
import { io, type Socket } from 'socket.io-client';
import type { Clock } from './clock.ts';

/** A position on the wire: degrees, m, m/s, degrees from north, the phone's ms since the epoch. */
export interface Report {
  tripId: string;
  lat: number;
  lng: number;
  accuracy: number;
  speed: number;
  heading: number;
  timestamp: number;
}

/** What a watcher gets; `at` is the server's time of processing, ms since the epoch. */
export interface Location {
  tripId: string;
  timestamp: number;
  at: number;
}

interface Refusal {
  ok: false;
  error: { code: string; message: string };
}

export type ReportAck = { ok: true } | Refusal;
export type JoinAck = { ok: true; last: Location | null; missed: Location[] } | Refusal;

/** Listeners are set before the first connect, and stay until `close`. */
export interface Line {
  readonly connected: boolean;
  /** At the first connect and at each reconnect. */
  onConnect(listener: () => void): void;
  onConnectError(listener: (message: string) => void): void;
  close(): void;
}

/** `answered` is never called when the connection breaks first. */
export interface DriverLine extends Line {
  report(report: Report, answered: (ack: ReportAck) => void): void;
  onRefused(listener: (timestamp: number | null, code: string) => void): void;
}

/** `answered` is never called when the connection breaks first. */
export interface WatcherLine extends Line {
  join(request: { tripId: string; after?: number }, answered: (ack: JoinAck) => void): void;
  onLocation(listener: (location: Location) => void): void;
}

interface ServerToClient {
  location: (location: Location) => void;
  'location:refused': (refusal: { timestamp: number | null; error: { code: string } }) => void;
  'server:drain': (drain: { reconnectInMs: number }) => void;
}

interface ClientToServer {
  'location:update': (report: Report, answered: (ack: ReportAck) => void) => void;
  'trip:join': (request: { tripId: string; after?: number }, answered: (ack: JoinAck) => void) => void;
}

/** Between tries where Socket.IO leaves the retrying to us, ms. */
const RETRY_MS = 1000;

/** Connects to the door at `url` as the user of `token`, and again whenever the connection breaks. */
export function connectLine(url: string, token: string, clock: Clock): DriverLine & WatcherLine {
  const socket: Socket<ServerToClient, ClientToServer> = io(url, {
    auth: { token },
    transports: ['websocket'],
    // A socket of its own per user, as phones have; else all would share the first one's connection.
    forceNew: true,
    reconnectionDelayMax: 2000,
  });
  let closed = false;
  let cancelRetry = () => {};
  const reconnectIn = (ms: number) => {
    cancelRetry();
    if (!closed) cancelRetry = clock.after(ms, () => socket.disconnect().connect());
  };
  // Socket.IO comes back by itself from a lost connection, but not after the server has said no or goodbye.
  socket.on('disconnect', (reason) => {
    if (reason === 'io server disconnect') reconnectIn(RETRY_MS);
  });
  socket.on('connect_error', () => {
    if (!socket.active) reconnectIn(RETRY_MS);
  });
  socket.on('server:drain', ({ reconnectInMs }) => reconnectIn(reconnectInMs));

  return {
    get connected() {
      return socket.connected;
    },
    onConnect: (listener) => void socket.on('connect', listener),
    onConnectError: (listener) => void socket.on('connect_error', ({ message }) => listener(message)),
    onRefused: (listener) =>
      void socket.on('location:refused', ({ timestamp, error }) => listener(timestamp, error.code)),
    onLocation: (listener) => void socket.on('location', listener),
    report: (report, answered) => void socket.emit('location:update', report, answered),
    join: (request, answered) => void socket.emit('trip:join', request, answered),
    close() {
      closed = true;
      cancelRetry();
      socket.disconnect();
    },
  };
}
