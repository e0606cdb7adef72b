import type { Api } from '../../support/simulate/api.ts';
import type {
  DriverLine,
  JoinAck,
  Location,
  Report,
  ReportAck,
  WatcherLine,
} from '../../support/simulate/sockets.ts';
import type { ManualClock } from './manual-clock.ts';

/** What the server does wrong, or is asked to. */
export interface Behaviour {
  /** The code that a report is refused with. */
  refuse?: (report: Report) => string | null;
  /** Publishes nothing of what these ticks (counted from 1) processed. */
  loseTicks?: number[];
  /** Publishes nothing in the first so many ticks: what is newest waits. */
  stalledTicks?: number;
  /** Publishes each update again. */
  double?: boolean;
  /** Publishes everything to everybody. */
  leak?: boolean;
  /** Acknowledges nothing. */
  mute?: boolean;
}

const TICK_MS = 1000;

/**
 * The documented behaviour in memory: every second the newest update of each trip goes to those who joined,
 * duplicates are dropped, and a join with `after` brings what was missed.
 */
export class FakeServer {
  readonly #clock: ManualClock;
  readonly behaviour: Behaviour;
  readonly steps: string[] = [];
  readonly reports: Report[] = [];
  readonly lines: FakeLine[] = [];
  readonly #buffer = new Map<string, Report>();
  readonly #published = new Map<string, Location[]>();
  #tick = 0;
  #stopTicking = () => {};

  constructor(clock: ManualClock, behaviour: Behaviour = {}) {
    this.#clock = clock;
    this.behaviour = behaviour;
    this.#tickLater();
  }

  readonly connect = (token: string): FakeLine => {
    const line = new FakeLine(this, this.#clock, token);
    this.lines.push(line);
    return line;
  };

  readonly api: Api = {
    signIn: async ({ phone }) => `token of ${phone}`,
    becomeDriver: async () => {},
    book: async (token) => `booking ${token}`,
    accept: async (_token, bookingId) => `trip ${bookingId}`,
    move: async (_token, tripId, step) => void this.steps.push(`${step} ${tripId}`),
  };

  take(report: Report): ReportAck {
    this.reports.push(report);
    const code = this.behaviour.refuse?.(report);
    if (code) return { ok: false, error: { code, message: '' } };
    const known = this.#buffer.get(report.tripId) ?? this.#published.get(report.tripId)?.at(-1);
    if (!known || known.timestamp < report.timestamp) this.#buffer.set(report.tripId, report);
    return { ok: true };
  }

  join(tripId: string, after: number | undefined): JoinAck {
    const all = this.#published.get(tripId) ?? [];
    const missed = after === undefined ? [] : all.filter(({ at }) => at >= after);
    return { ok: true, last: all.at(-1) ?? null, missed };
  }

  /** As one that is killed: every line breaks, and what is acknowledged and not published is gone. */
  die(): void {
    this.#buffer.clear();
    for (const line of this.lines) line.drop();
  }

  stop(): void {
    this.#stopTicking();
  }

  #tickLater(): void {
    this.#stopTicking = this.#clock.after(TICK_MS, () => {
      this.#tick += 1;
      if (this.#tick > (this.behaviour.stalledTicks ?? 0)) this.#publish();
      this.#tickLater();
    });
  }

  #publish(): void {
    for (const { tripId, timestamp } of this.#buffer.values()) {
      const location = { tripId, timestamp, at: this.#clock.epochNow() };
      if (this.behaviour.loseTicks?.includes(this.#tick)) continue;
      this.#published.set(tripId, [...(this.#published.get(tripId) ?? []), location]);
      const watching = this.lines.filter((line) => line.connected && line.joined !== null);
      for (const line of watching.filter(({ joined }) => this.behaviour.leak || joined === tripId)) {
        line.deliver(location);
        if (this.behaviour.double) line.deliver(location);
      }
    }
    this.#buffer.clear();
  }
}

/** A socket that connects 10 ms after it was made; `drop` and `restore` break it. */
export class FakeLine implements DriverLine, WatcherLine {
  readonly #server: FakeServer;
  readonly #onConnect: (() => void)[] = [];
  readonly #onLocation: ((location: Location) => void)[] = [];
  readonly #cancel: () => void;
  readonly token: string;
  connected = false;
  closed = false;
  joined: string | null = null;

  constructor(server: FakeServer, clock: ManualClock, token: string) {
    this.#server = server;
    this.token = token;
    this.#cancel = clock.after(10, () => this.restore());
  }

  onConnect(listener: () => void): void {
    this.#onConnect.push(listener);
  }

  onConnectError(): void {}

  onRefused(): void {}

  onLocation(listener: (location: Location) => void): void {
    this.#onLocation.push(listener);
  }

  report(report: Report, answered: (ack: ReportAck) => void): void {
    const ack = this.#server.take(report);
    if (!this.#server.behaviour.mute) answered(ack);
  }

  join({ tripId, after }: { tripId: string; after?: number }, answered: (ack: JoinAck) => void): void {
    this.joined = tripId;
    answered(this.#server.join(tripId, after));
  }

  deliver(location: Location): void {
    for (const listener of this.#onLocation) listener(location);
  }

  drop(): void {
    this.connected = false;
    this.joined = null;
  }

  restore(): void {
    this.connected = true;
    for (const listener of this.#onConnect) listener();
  }

  close(): void {
    this.#cancel();
    this.closed = true;
    this.drop();
  }
}
