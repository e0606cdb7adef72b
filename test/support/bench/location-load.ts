/**
 * A process that is the phones of many trips: drivers who report, and who watches. It takes orders from its parent by IPC, one
 * after the other, answers each, and ends with it. Some of its phones are real socket.io-clients, in the same books.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import { io } from 'socket.io-client';
import { loadTracks, type TracePoint } from '../simulate/traces.ts';
import { longestDrive, whereabouts } from './course.ts';
import { addDelivery, type Delivery, deliveryOf, noDelivery, type Received, type Sent } from './delivery.ts';
import { openLean } from './lean-socket.ts';

/** Whose phone, and the server that it is connected to. */
export interface PhoneOrder {
  url: string;
  token: string;
}

export interface TripOrder {
  tripId: string;
  driver: PhoneOrder;
  watchers: PhoneOrder[];
}

export interface RunOrder {
  do: 'run';
  system: string;
  /** The first so many of the trips report, each so often. */
  trips: number;
  perTripPerS: number;
  forMs: number;
  supersededWithinMs: number;
}

export type LoadOrder =
  | { do: 'connect'; system: string; trips: TripOrder[] }
  | RunOrder
  | { do: 'close'; system: string };

export interface LoadOutcome extends Delivery {
  /** In which all was sent. */
  tookMs: number;
  /** Refused updates and lost connections. */
  errors: number;
  /** How late this process itself was at its timers, p99: its times cannot be better. */
  lateP99Ms: number;
  /** That this process took meanwhile. */
  cpuMs: number;
}

export type LoadAnswer = { ok: LoadOutcome | null } | { failed: string };

interface Phone {
  send(event: string, payload: object): void;
  ask(event: string, payload: object): Promise<unknown>;
  close(): void;
}

interface Listeners {
  onEvent: (event: string, payload: unknown) => void;
  onEnd: (why: string) => void;
}

interface Trip {
  tripId: string;
  driver: Phone;
  watchers: Phone[];
  drive: readonly TracePoint[];
  /** Vehicles on the same course are not in the same place, ms. */
  aheadMs: number;
  lastTimestamp: number;
  sent: Sent[];
  received: Received[][];
}

interface Fleet {
  trips: Trip[];
  errors: number;
}

const connectsAtOnce = 30;
const connectAttempts = 5;
/** Each so many-th trip has real clients. */
const realEvery = 50;
const pulseMs = 4;
/** What has not come so long after the last was sent does not come, ms. */
const patienceMs = 20_000;

const drives = (await loadTracks()).flatMap((track) => {
  const drive = longestDrive(track);
  return drive ? [drive] : [];
});
const fleets = new Map<string, Fleet>();

function openLeanPhone({ url, token }: PhoneOrder, { onEvent, onEnd }: Listeners): Promise<Phone> {
  return new Promise((resolve, reject) => {
    const socket = openLean({
      url,
      auth: { token },
      onConnect: () =>
        resolve({
          send: (event, payload) => socket.send(`42${JSON.stringify([event, payload])}`),
          ask: (event, payload) => socket.ask(event, payload),
          close: () => socket.drop(),
        }),
      onEvent,
      onEnd(why) {
        reject(new Error(why));
        onEnd(why);
      },
    });
  });
}

function openRealPhone({ url, token }: PhoneOrder, { onEvent, onEnd }: Listeners): Promise<Phone> {
  const socket = io(url, {
    auth: { token },
    transports: ['websocket'],
    forceNew: true,
    reconnection: false,
  });
  socket.onAny(onEvent);
  socket.on('disconnect', (why) => {
    if (why !== 'io client disconnect') onEnd(why);
  });
  return new Promise((resolve, reject) => {
    socket.once('connect_error', reject);
    socket.once('connect', () =>
      resolve({
        send: (event, payload) => void socket.emit(event, payload),
        ask: (event, payload) => socket.timeout(10_000).emitWithAck(event, payload),
        close: () => void socket.disconnect(),
      }),
    );
  });
}

async function openTrip({ tripId, driver, watchers }: TripOrder, n: number, fleet: Fleet): Promise<Trip> {
  const open = n % realEvery === 0 ? openRealPhone : openLeanPhone;
  const onEnd = () => void fleet.errors++;
  const received: Received[][] = watchers.map(() => []);
  const watching = watchers.map(async (watcher, w) => {
    const phone = await open(watcher, {
      onEvent(event, payload) {
        if (event !== 'location') return;
        const { timestamp, at } = payload as { timestamp: number; at: number };
        received[w]?.push({ timestamp, at, receivedAt: performance.now(), ageMs: Date.now() - at });
      },
      onEnd,
    });
    const ack = (await phone.ask('trip:join', { tripId })) as { ok: boolean };
    if (!ack.ok) throw new Error(`trip:join was refused: ${JSON.stringify(ack)}`);
    return phone;
  });
  const onEvent = (event: string) => {
    if (event === 'location:refused') fleet.errors++;
  };
  const [reporting, ...others] = await Promise.all([open(driver, { onEvent, onEnd }), ...watching]);
  return {
    tripId,
    driver: reporting,
    watchers: others,
    drive: drives[n % drives.length] ?? [],
    aheadMs: n * 7919,
    lastTimestamp: 0,
    sent: [],
    received,
  };
}

/** So many at once are more than servers answer in time on a machine that does something else too. */
async function patiently<T>(open: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await open();
    } catch (error) {
      if (attempt === connectAttempts) throw error;
      await pause(attempt * 1000);
    }
  }
}

async function connect(system: string, orders: TripOrder[]): Promise<void> {
  const fleet = fleets.get(system) ?? { trips: [], errors: 0 };
  fleets.set(system, fleet);
  const first = fleet.trips.length;
  let next = 0;
  const connector = async () => {
    for (let n = next++; n < orders.length; n = next++) {
      const order = orders[n];
      if (order) fleet.trips[first + n] = await patiently(() => openTrip(order, first + n, fleet));
    }
  };
  await Promise.all(Array.from({ length: connectsAtOnce }, connector));
}

function report(trip: Trip): void {
  const timestamp = Math.max(Date.now(), trip.lastTimestamp + 1);
  const where = whereabouts(trip.drive, timestamp + trip.aheadMs);
  trip.lastTimestamp = timestamp;
  trip.sent.push({ timestamp, sentAt: performance.now() });
  trip.driver.send('location:update', { tripId: trip.tripId, ...where, accuracy: 10, timestamp });
}

/** The last that was sent is never superseded. */
const isAwaiting = ({ sent, received, lastTimestamp }: Trip): boolean =>
  sent.length > 0 && received.some((each) => !each.some(({ timestamp }) => timestamp === lastTimestamp));

async function run(order: RunOrder): Promise<LoadOutcome> {
  const fleet = fleets.get(order.system);
  if (!fleet) throw new Error(`Nobody is connected to ${order.system}`);
  const trips = fleet.trips.slice(0, order.trips);
  const perMs = (trips.length * order.perTripPerS) / 1000;
  const errorsBefore = fleet.errors;
  const late = monitorEventLoopDelay({ resolution: 5 });
  late.enable();
  const cpuBefore = process.cpuUsage();
  const began = performance.now();
  let n = 0;
  for (let elapsed = 0; elapsed < order.forMs; elapsed = performance.now() - began) {
    // Evenly over the second, and each trip at even intervals
    for (const due = Math.floor(elapsed * perMs); n < due; n++) report(trips[n % trips.length] as Trip);
    await pause(pulseMs);
  }
  const tookMs = performance.now() - began;
  while (trips.some(isAwaiting) && performance.now() < began + tookMs + patienceMs) await pause(20);
  const { user, system } = process.cpuUsage(cpuBefore);
  late.disable();
  // One that comes twice has come by then
  await pause(100);
  const delivery = noDelivery();
  for (const trip of trips) {
    addDelivery(delivery, deliveryOf(trip.sent.splice(0), trip.received, order.supersededWithinMs));
    for (const received of trip.received) received.length = 0;
  }
  return {
    ...delivery,
    tookMs,
    errors: fleet.errors - errorsBefore,
    lateP99Ms: late.percentile(99) / 1e6,
    cpuMs: (user + system) / 1000,
  };
}

function close(system: string): void {
  for (const { driver, watchers } of fleets.get(system)?.trips ?? [])
    for (const phone of [driver, ...watchers]) phone.close();
  fleets.delete(system);
}

async function obey(order: LoadOrder): Promise<LoadOutcome | null> {
  if (order.do === 'run') return run(order);
  if (order.do === 'connect') await connect(order.system, order.trips);
  else close(order.system);
  return null;
}

process.on('disconnect', () => process.exit());
process.on('message', (order: LoadOrder) => {
  obey(order).then(
    (ok) => process.send?.({ ok } satisfies LoadAnswer),
    (error: unknown) => process.send?.({ failed: String(error) } satisfies LoadAnswer),
  );
});
