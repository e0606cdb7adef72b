/** A whole run: signs everybody up, drives all trips while their riders watch, ends them, adds up. */
import { addCounts, type Counts, faults, noCounts, TripLedger } from './accounting.ts';
import type { Api } from './api.ts';
import { asError, type Clock } from './clock.ts';
import { type Drive, drive } from './drive.ts';
import { expectedJumps } from './expected-jumps.ts';
import { createGate } from './gate.ts';
import { Meter, type Percentiles } from './meter.ts';
import { people } from './people.ts';
import type { DriverLine, Line, WatcherLine } from './sockets.ts';
import type { Track } from './traces.ts';
import { type Watch, watch } from './watch.ts';

/** Trips that are set up at once; each signs in two users. */
const SETUPS_AT_ONCE = 10;
const ENDS_AT_ONCE = 20;
const CONNECT_MS = 15_000;
/** How long the last update of a trip may take to reach its riders, at least; a window that is larger lets it take longer. */
const SETTLE_MS = 3000;
/** The first points of the drives are spread over so long, or all would come in one burst. */
const STAGGER_MS = 1000;
/** After an interrupt: for settling, and for everything. */
const HURRIED_SETTLE_MS = 2000;
const HURRIED_MS = 5000;

export interface RunOptions {
  trips: number;
  speedup: number;
  /** Sockets that watch each trip, all of its rider. */
  watchers: number;
  /** The longest that two updates of one server batch can be apart, ms. */
  batchWindowMs: number;
  /** Keeps the users of this run apart from another's, 1 to 9999. */
  run: number;
  tracks: readonly Track[];
  /** Ends the run early, in 5 s at most. */
  interrupt: AbortSignal;
  /** Told every second how it goes. */
  onProgress: (progress: Progress) => void;
}

export interface RunParts {
  api: Api;
  clock: Clock;
  connectDriver: (token: string) => DriverLine;
  connectWatcher: (token: string) => WatcherLine;
}

export interface Progress {
  phase: 'setting up' | 'driving' | 'ending';
  /** Trips set up so far. */
  ready: number;
  trips: number;
  /** Drives that are not over yet. */
  driving: number;
  /** Of the whole run so far. */
  counts: Counts;
  /** In the last second. */
  sentPerS: number;
  deliveredPerS: number;
  screenMs: Percentiles;
  processedMs: Percentiles;
  reconnects: number;
}

export interface Summary {
  name: 'simulate';
  ok: boolean;
  interrupted: boolean;
  /** Why it is not ok, each a sentence. */
  problems: string[];
  trips: number;
  speedup: number;
  watchers: number;
  /** Of driving, set-up not counted. */
  seconds: number;
  counts: Counts;
  screenMs: Percentiles;
  processedMs: Percentiles;
  reconnects: number;
  /** Refused re-joins of riders by code. */
  refusedJoins: Record<string, number>;
}

/** A trip from its acceptance to its end. */
interface Session {
  tripId: string;
  driverToken: string;
  started: boolean;
  track: Track;
  ledger: TripLedger;
  line: DriverLine | null;
  watches: Watch[];
}

/** Runs to the end, or to the interrupt; never rejects, as what goes wrong is among the summary's problems. */
export async function simulate(options: RunOptions, parts: RunParts): Promise<Summary> {
  return new Run(options, parts).simulate();
}

class Run {
  readonly #options: RunOptions;
  readonly #parts: RunParts;
  readonly #meter = new Meter();
  readonly #problems: string[] = [];
  readonly #sessions = new Set<Session>();
  readonly #drives = new Set<Drive>();
  readonly #jumps = new Map<Track, Set<number>>();
  readonly #endGate = createGate(ENDS_AT_ONCE);
  /** Aborted by the first failure of the set-up, and by an interrupt. */
  readonly #setUp = new AbortController();
  /** Aborted when the time after an interrupt is over. */
  readonly #patience = new AbortController();
  /** Of the trips that are over. */
  #finished = noCounts();
  #ready = 0;
  #phase: Progress['phase'] = 'setting up';
  #last = { at: 0, sent: 0, delivered: 0 };
  #cancelTick = () => {};
  #cancelPatience = () => {};

  constructor(options: RunOptions, parts: RunParts) {
    this.#options = options;
    this.#parts = parts;
  }

  async simulate(): Promise<Summary> {
    const { interrupt } = this.#options;
    const { clock } = this.#parts;
    const onInterrupt = () => this.#hurry();
    interrupt.addEventListener('abort', onInterrupt, { once: true });
    if (interrupt.aborted) onInterrupt();
    this.#scheduleTick();
    await this.#prepareAll();
    const drivingSince = clock.now();
    if (this.#setUp.signal.aborted) {
      this.#phase = 'ending';
      await Promise.all([...this.#sessions].map((session) => this.#end(session)));
    } else {
      this.#phase = 'driving';
      await this.#driveAll();
    }
    interrupt.removeEventListener('abort', onInterrupt);
    this.#cancelTick();
    this.#cancelPatience();
    return this.#summary((clock.now() - drivingSince) / 1000);
  }

  async #prepareAll(): Promise<void> {
    const gate = createGate(SETUPS_AT_ONCE);
    const prepareNext = async (index: number) => {
      if (this.#setUp.signal.aborted) return;
      try {
        await this.#prepare(index);
        this.#ready += 1;
      } catch (error) {
        // The first failure stops the others, whose own failures then say nothing.
        if (this.#setUp.signal.aborted) return;
        this.#problems.push(`set-up of trip ${index + 1} failed: ${asError(error).message}`);
        this.#setUp.abort(new Error('The set-up has failed'));
      }
    };
    const { trips } = this.#options;
    await Promise.all(Array.from({ length: trips }, (_, index) => gate(() => prepareNext(index))));
  }

  async #prepare(index: number): Promise<void> {
    const { run, tracks, watchers, batchWindowMs } = this.#options;
    const { api, connectDriver, connectWatcher, clock } = this.#parts;
    const track = tracks[index % tracks.length];
    const from = track?.points[0];
    const to = track?.points.at(-1);
    if (!track || !from || !to) throw new Error('there is no recorded drive for it');
    const { signal } = this.#setUp;
    const { driver, rider, plate } = people(run, index);
    const [driverToken, riderToken] = await Promise.all([
      api.signIn(driver, signal),
      api.signIn(rider, signal),
    ]);
    await api.becomeDriver(driverToken, { plate, model: 'Simulated' }, signal);
    const departAt = new Date(clock.epochNow()).toISOString();
    const booking = { from: { lat: from.lat, lng: from.lng }, to: { lat: to.lat, lng: to.lng }, departAt };
    const bookingId = await api.book(riderToken, booking, signal);
    // From here on a failure elsewhere does not cut in: what became of the trip must be known to end it.
    const tripId = await api.accept(driverToken, bookingId, this.#patience.signal);
    const ledger = new TripLedger({ tripId, watchers, batchWindowMs });
    const session: Session = { tripId, driverToken, started: false, track, ledger, line: null, watches: [] };
    this.#sessions.add(session);
    await api.move(driverToken, tripId, 'start', this.#patience.signal);
    session.started = true;
    const line = connectDriver(driverToken);
    session.line = line;
    const ready = [this.#connected(line, 'driver')];
    for (let watcher = 0; watcher < watchers; watcher += 1) {
      const riderLine = connectWatcher(riderToken);
      const watching = watch({ tripId, watcher, line: riderLine, ledger, meter: this.#meter, clock });
      session.watches.push(watching);
      ready.push(this.#connected(riderLine, 'rider', watching.joined));
    }
    await Promise.all(ready);
  }

  /** Resolves when the line is connected and `joined`; rejects when that takes too long. */
  async #connected(line: Line, who: string, joined: Promise<void> = Promise.resolve()): Promise<void> {
    const connected = Promise.withResolvers<void>();
    const failed = Promise.withResolvers<never>();
    const { signal } = this.#setUp;
    let trouble = 'no answer';
    let connects = 0;
    line.onConnect(() => {
      connects += 1;
      if (connects === 1) connected.resolve();
      else this.#meter.reconnects += 1;
    });
    line.onConnectError((message) => {
      trouble = message;
    });
    const giveUp = () => failed.reject(asError(signal.reason));
    if (signal.aborted) giveUp();
    signal.addEventListener('abort', giveUp, { once: true });
    const cancel = this.#parts.clock.after(CONNECT_MS, () =>
      failed.reject(new Error(`the ${who} could not connect or join in ${CONNECT_MS / 1000} s: ${trouble}`)),
    );
    try {
      await Promise.race([Promise.all([connected.promise, joined]), failed.promise]);
    } finally {
      cancel();
      signal.removeEventListener('abort', giveUp);
    }
  }

  async #driveAll(): Promise<void> {
    const sessions = [...this.#sessions];
    await Promise.all(sessions.map((session, index) => this.#drive(session, index / sessions.length)));
  }

  async #drive(session: Session, share: number): Promise<void> {
    const { clock } = this.#parts;
    const { track, line, ledger, tripId } = session;
    const lastPoint = track.points.at(-1);
    if (!line || !lastPoint) return;
    const expected = this.#jumps.get(track) ?? expectedJumps(track.points);
    this.#jumps.set(track, expected);
    const driving = drive({
      tripId,
      points: track.points,
      expectedJumps: expected,
      // The last timestamp is now, so that none is ahead however fast the replay.
      timeShiftMs: clock.epochNow() - lastPoint.timeMs,
      speedup: this.#options.speedup,
      startDelayMs: share * STAGGER_MS,
      settleMs: this.#settleMs,
      line,
      ledger,
      clock,
    });
    this.#drives.add(driving);
    await driving.done;
    this.#drives.delete(driving);
    await this.#end(session);
  }

  get #settleMs(): number {
    return Math.max(SETTLE_MS, this.#options.batchWindowMs + 1000);
  }

  /** Ends the trip, hangs up, and keeps only the figures. */
  async #end(session: Session): Promise<void> {
    const { tripId, driverToken, started, line, watches, ledger } = session;
    try {
      const step = started ? 'end' : 'cancel';
      const { signal } = this.#patience;
      await this.#endGate(() => this.#parts.api.move(driverToken, tripId, step, signal));
    } catch (error) {
      this.#problems.push(`trip ${tripId} could not be ended: ${asError(error).message}`);
    }
    line?.close();
    for (const watching of watches) watching.close();
    this.#finished = addCounts(this.#finished, ledger.counts());
    this.#sessions.delete(session);
  }

  #hurry(): void {
    this.#phase = 'ending';
    this.#setUp.abort(new Error('interrupted'));
    for (const driving of this.#drives) driving.stop(HURRIED_SETTLE_MS);
    this.#cancelPatience = this.#parts.clock.after(HURRIED_MS, () =>
      this.#patience.abort(new Error(`no time was left ${HURRIED_MS / 1000} s after the interrupt`)),
    );
  }

  #scheduleTick(): void {
    const { clock } = this.#parts;
    this.#last = { ...this.#last, at: clock.now() };
    this.#cancelTick = clock.after(1000, () => {
      this.#options.onProgress(this.#progress());
      this.#scheduleTick();
    });
  }

  /** Of all trips; what is younger than its time to settle may still be in flight. */
  #counts(): Counts {
    const settledBefore = this.#parts.clock.now() - this.#settleMs;
    return [...this.#sessions].reduce(
      (sum, { ledger }) => addCounts(sum, ledger.counts(settledBefore)),
      this.#finished,
    );
  }

  #progress(): Progress {
    const { clock } = this.#parts;
    const counts = this.#counts();
    const { at, sent, delivered } = this.#last;
    const seconds = (clock.now() - at) / 1000;
    this.#last = { at: clock.now(), sent: counts.sent, delivered: counts.delivered };
    return {
      phase: this.#phase,
      ready: this.#ready,
      trips: this.#options.trips,
      driving: this.#drives.size,
      counts,
      sentPerS: (counts.sent - sent) / seconds,
      deliveredPerS: (counts.delivered - delivered) / seconds,
      screenMs: this.#meter.screen.recent(),
      processedMs: this.#meter.processed.recent(),
      reconnects: this.#meter.reconnects,
    };
  }

  #summary(seconds: number): Summary {
    const { trips, speedup, watchers, interrupt } = this.#options;
    const problems = [...this.#problems, ...faults(this.#finished)];
    return {
      name: 'simulate',
      ok: problems.length === 0,
      interrupted: interrupt.aborted,
      problems,
      trips,
      speedup,
      watchers,
      seconds,
      counts: this.#finished,
      screenMs: this.#meter.screen.total(),
      processedMs: this.#meter.processed.total(),
      reconnects: this.#meter.reconnects,
      refusedJoins: this.#meter.refusedJoins,
    };
  }
}
