/**
 * A process that floods the doors with locations and codes, or finds out how much of them is taken. Reads one JSON object
 * (`FloodOrder`) from its argument, writes a line when the flood begins and one object (`FloodOutcome`) when it is done, and ends by itself.
 */
import { Agent, request } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { io, type Socket } from 'socket.io-client';

export interface FloodOrder {
  apiUrl: string;
  socketUrl: string;
  drivers: { token: string; tripId: string }[];
  forMs: number;
  /** So many a second, whatever becomes of them; null: as many as are taken, some at a time. */
  perS: { locations: number; otps: number } | null;
}

export interface FloodOutcome {
  /** By what the answer was: `ok`, a code, a status, `none`. */
  locations: Record<string, number>;
  otps: Record<string, number>;
  sent: { locations: number; otps: number };
  tookMs: number;
}

const order = JSON.parse(process.argv[2] ?? '{}') as FloodOrder;
const counts = { locations: new Map<string, number>(), otps: new Map<string, number>() };
const sent = { locations: 0, otps: 0 };
const count = (kind: keyof typeof counts, what: string) =>
  counts[kind].set(what, (counts[kind].get(what) ?? 0) + 1);

/** Under way at once when it is asked how much is taken. */
const atOnce = { locations: 200, otps: 32 };
/** What has no answer after the flood, and so long, is given up, ms. */
const patienceMs = 3000;

const agent = new Agent({ keepAlive: true, maxSockets: 200 });
const url = new URL('/api/v1/auth/otp', order.apiUrl);
let phones = Math.floor(Math.random() * 80_000_000);

function otp(): Promise<void> {
  sent.otps++;
  const body = JSON.stringify({ phone: `+9197${String(10_000_000 + ++phones)}` });
  const headers = { 'content-type': 'application/json', 'content-length': body.length };
  return new Promise((resolve) => {
    const call = request(url, { method: 'POST', agent, headers }, (answer) => {
      answer.resume();
      answer.on('end', () => {
        count('otps', String(answer.statusCode));
        resolve();
      });
    });
    call.on('error', () => {
      count('otps', 'none');
      resolve();
    });
    call.end(body);
  });
}

function locate(socket: Socket, tripId: string): Promise<void> {
  sent.locations++;
  const fix = { tripId, lat: -10.93, lng: -37.06, accuracy: 8, speed: 9, heading: 1, timestamp: Date.now() };
  return new Promise((resolve) => {
    socket.emit('location:update', fix, (ack: { ok: boolean; error?: { code: string } }) => {
      count('locations', ack.ok ? 'ok' : (ack.error?.code ?? 'none'));
      resolve();
    });
  });
}

const lines = await Promise.all(
  order.drivers.map(async ({ token, tripId }) => {
    const socket = io(order.socketUrl, { auth: { token }, transports: ['websocket'], forceNew: true });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('connect_error', reject);
    });
    return { socket, tripId };
  }),
);
// Whoever measures something beside the flood begins now
process.stdout.write('up\n');
const line = (n: number) => lines[n % lines.length] ?? Promise.reject(new Error('no drivers'));
const location = async (n: number) => {
  const { socket, tripId } = await line(n);
  await locate(socket, tripId);
};

const began = performance.now();
const until = began + order.forMs;

async function asMuchAsIsTaken(work: (n: number) => Promise<void>, howMany: number): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (performance.now() < until) await work(next++);
  };
  await Promise.all(Array.from({ length: howMany }, worker));
}

/** Open: what is due is sent, answered or not. */
async function soMany(work: (n: number) => Promise<void>, perS: number): Promise<void> {
  for (let n = 0; performance.now() < until; ) {
    const due = Math.floor(((performance.now() - began) / 1000) * perS);
    for (; n < due; n++) void work(n);
    await pause(5);
  }
}

await (order.perS
  ? Promise.all([soMany(location, order.perS.locations), soMany(otp, order.perS.otps)])
  : Promise.all([asMuchAsIsTaken(location, atOnce.locations), asMuchAsIsTaken(otp, atOnce.otps)]));
const tookMs = performance.now() - began;
const answered = () =>
  [...counts.locations.values(), ...counts.otps.values()].reduce((sum, each) => sum + each, 0);
while (answered() < sent.locations + sent.otps && performance.now() < until + patienceMs) await pause(20);
const outcome: FloodOutcome = {
  locations: Object.fromEntries(counts.locations),
  otps: Object.fromEntries(counts.otps),
  sent,
  tookMs,
};
for (const { socket } of lines) socket.close();
agent.destroy();
process.stdout.write(`${JSON.stringify(outcome)}\n`, () => process.exit(0));
