/**
 * One reader of the admin feed for a whole process, and what it tells each subscriber. The reader keeps the newest events
 * in memory; a subscriber is no more than a place in the feed: it takes what comes after it from memory, or in pages
 * from Redis when it is further back. So history joins the live events without gap or double, and a slow subscriber
 * costs no memory: it is simply further back. Needs the SOS Redis and nothing else.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import type { DeliveredEvent, FeedDigest, FeedFilter } from '../contracts/feed.ts';
import { matchesFilter } from './feed-filter.ts';
import {
  compareIds,
  type FeedPage,
  feedKeys,
  isOutOfReach,
  parseEntry,
  readBounds,
  readPage,
} from './feed-stream.ts';
import { StormBudget } from './storm-budget.ts';

/** Where a subscriber's events go. `ready` resolves when it can take more. */
export interface FeedSink {
  events(events: DeliveredEvent[]): void;
  digest(digest: FeedDigest): void;
  resync(cursor: string): void;
  ready(): Promise<void>;
}

export interface FeedReaderOptions {
  /** For short questions. */
  redis: Redis;
  /** A connection of the reader's own, for waiting. The reader disconnects it. */
  connect(): Redis;
  onTrouble(text: string, error: unknown): void;
  /** Events kept in memory. */
  keep?: number;
}

const pageSize = 500;
/** Longer than an empty wait, shorter than a command may take (mixins/redis.ts), ms. */
const blockMs = 1000;
/** After what came, what comes in this time is sent together, ms: at most 50 messages a second to a subscriber. */
const gatherMs = 20;

/** 0.1 to 2 s, doubling, half of it by chance. */
const backoffMs = (attempt: number) => Math.min(2000, 100 * 2 ** attempt) * (0.5 + Math.random() / 2);

export class FeedReader {
  readonly #options: FeedReaderOptions;
  readonly #keep: number;
  readonly #subscriptions = new Set<FeedSubscription>();
  /** Every event after `#floor` up to `#position`. */
  #recent: DeliveredEvent[] = [];
  #floor = '0-0';
  #position: string | null = null;
  #running: AbortController | null = null;

  constructor(options: FeedReaderOptions) {
    this.#options = options;
    this.#keep = options.keep ?? 5000;
  }

  /** The end of the feed, as far as is known here: what comes from now on comes after it. Rejects when nobody can say. */
  async end(): Promise<string> {
    return this.#position ?? (await readBounds(this.#options.redis)).lastId;
  }

  page(after: string): Promise<FeedPage> {
    return readPage(this.#options.redis, after, pageSize);
  }

  /**
   * Events that match, after `after` (an id). Every one of them, in order, but for a storm: then a digest stands for most of
   * what is live. The first one comes no sooner than in the next turn.
   */
  subscribe(after: string, filter: FeedFilter, sink: FeedSink): FeedSubscription {
    const subscription = new FeedSubscription(this, after, filter, sink, {
      onTrouble: (text, error) => this.#options.onTrouble(text, error),
      onClose: () => {
        this.#subscriptions.delete(subscription);
        if (this.#subscriptions.size === 0) this.#halt();
      },
    });
    this.#subscriptions.add(subscription);
    if (!this.#running) {
      this.#running = new AbortController();
      void this.#run(this.#running.signal);
    }
    setImmediate(() => subscription.wake());
    return subscription;
  }

  /** For the end: nothing is sent any more. */
  close(): void {
    for (const subscription of this.#subscriptions) subscription.close();
  }

  /** What is in memory after `cursor`; null when its next events are not, or not yet known to be. */
  recentAfter(cursor: string): DeliveredEvent[] | null {
    if (this.#position === null || compareIds(cursor, this.#floor) < 0) return null;
    // Half of what is left each time: a storm asks this often
    let [from, to] = [0, this.#recent.length];
    while (from < to) {
      const middle = (from + to) >> 1;
      if (compareIds(this.#recent[middle]?.id ?? cursor, cursor) > 0) to = middle;
      else from = middle + 1;
    }
    return this.#recent.slice(from);
  }

  #halt(): void {
    this.#running?.abort();
    this.#running = null;
    this.#position = null;
    this.#recent = [];
  }

  async #run(signal: AbortSignal): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      // A new one after each failure: half-open connections end only if somebody ends them
      const connection = this.#options.connect();
      const end = () => connection.disconnect();
      signal.addEventListener('abort', end);
      try {
        await this.#follow(connection, signal, () => (failures = 0));
      } catch (error) {
        if (signal.aborted) return;
        if (failures === 0) this.#options.onTrouble('The admin feed cannot be read; it goes on later', error);
      } finally {
        signal.removeEventListener('abort', end);
        end();
      }
      await pause(backoffMs(failures++), undefined, { signal }).catch(() => undefined);
    }
  }

  /** Takes what comes, until the end or a failure. */
  async #follow(connection: Redis, signal: AbortSignal, onRead: () => void): Promise<void> {
    let isAligned = false;
    // A Redis that comes back may be another one, or one that has lost something
    connection.on('ready', () => (isAligned = false));
    while (!signal.aborted) {
      if (!isAligned) {
        isAligned = true;
        await this.#align(connection, signal);
      }
      const events = await this.#read(connection);
      onRead();
      if (events.length === 0 || !isAligned || signal.aborted) continue;
      this.#accept(events);
      await pause(gatherMs, undefined, { signal });
    }
  }

  /** Finds the end of the feed; after a loss also whether the feed still goes on where the reader was. */
  async #align(connection: Redis, signal: AbortSignal): Promise<void> {
    const bounds = await readBounds(connection);
    if (signal.aborted) return;
    if (this.#position !== null && !isOutOfReach(this.#position, bounds)) return;
    this.#position = bounds.lastId;
    this.#floor = bounds.lastId;
    this.#recent = [];
    for (const subscription of this.#subscriptions) subscription.recheck();
  }

  /** What has come, or comes soon. */
  async #read(connection: Redis): Promise<DeliveredEvent[]> {
    const { stream } = feedKeys;
    const after = this.#position ?? '$';
    const answer = await connection.xread('COUNT', 2000, 'BLOCK', blockMs, 'STREAMS', stream, after);
    return answer?.[0]?.[1].map(parseEntry) ?? [];
  }

  #accept(events: DeliveredEvent[]): void {
    this.#recent.push(...events);
    this.#position = events.at(-1)?.id ?? this.#position;
    const surplus = this.#recent.length - this.#keep;
    if (surplus > 0) this.#floor = this.#recent.splice(0, surplus).at(-1)?.id ?? this.#floor;
    for (const subscription of this.#subscriptions) subscription.wake();
  }
}

/** A subscriber's place in the feed, moving on as fast as its sink takes what matches. */
export class FeedSubscription {
  readonly #reader: FeedReader;
  readonly #filter: FeedFilter;
  readonly #sink: FeedSink;
  readonly #hooks: { onTrouble(text: string, error: unknown): void; onClose(): void };
  readonly #budget = new StormBudget();
  readonly #closing = new AbortController();
  #cursor: string;
  /** Ask Redis, whatever is in memory: only it knows whether the cursor can still be reached. */
  #mustAsk = true;
  /** Has it caught up with the reader once? Only what comes after that can be a storm. */
  #isLive = false;
  #isBusy = false;
  #isWoken = false;

  constructor(
    reader: FeedReader,
    after: string,
    filter: FeedFilter,
    sink: FeedSink,
    hooks: { onTrouble(text: string, error: unknown): void; onClose(): void },
  ) {
    this.#reader = reader;
    this.#cursor = after;
    this.#filter = filter;
    this.#sink = sink;
    this.#hooks = hooks;
  }

  /** What was sent, or did not match, comes up to here. */
  get cursor(): string {
    return this.#cursor;
  }

  close(): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    this.#hooks.onClose();
  }

  /** The feed may not be what it was. */
  recheck(): void {
    this.#mustAsk = true;
    this.wake();
  }

  /** There may be something new. */
  wake(): void {
    this.#isWoken = true;
    if (this.#isBusy || this.#closing.signal.aborted) return;
    this.#isBusy = true;
    void this.#run();
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    let failures = 0;
    while (this.#isWoken && !signal.aborted) {
      this.#isWoken = false;
      try {
        while (!signal.aborted && (await this.#step()));
        failures = 0;
      } catch (error) {
        if (failures === 0) this.#hooks.onTrouble('A subscriber of the admin feed waits for it', error);
        this.#mustAsk = true;
        this.#isWoken = true;
        await pause(backoffMs(failures++), undefined, { signal }).catch(() => undefined);
      }
    }
    // In the same turn as the last look at `#isWoken`
    this.#isBusy = false;
  }

  /** Moves on by what is in memory, or by a page. False when there is nothing to move on by. */
  async #step(): Promise<boolean> {
    const events = await this.#next();
    if (events.length === 0) return false;
    await this.#deliver(events.filter((event) => matchesFilter(this.#filter, event)));
    if (!this.#closing.signal.aborted) this.#cursor = events.at(-1)?.id ?? this.#cursor;
    return true;
  }

  async #next(): Promise<DeliveredEvent[]> {
    const recent = this.#mustAsk ? null : this.#reader.recentAfter(this.#cursor);
    if (recent) {
      this.#isLive = true;
      return recent;
    }
    this.#mustAsk = false;
    const { events, bounds, outOfReach } = await this.#reader.page(this.#cursor);
    if (this.#closing.signal.aborted) return [];
    if (!outOfReach) return events;
    this.#cursor = bounds.lastId;
    this.#sink.resync(bounds.lastId);
    return [];
  }

  async #deliver(matching: DeliveredEvent[]): Promise<void> {
    if (matching.length === 0) return;
    const { skipped, sent } = this.#isLive
      ? this.#budget.split(matching, Date.now())
      : { skipped: [], sent: matching };
    await this.#sink.ready();
    if (this.#closing.signal.aborted) return;
    if (skipped.length > 0) {
      const digest = digestOf(skipped);
      this.#sink.digest(digest);
      this.#cursor = digest.to;
    }
    for (let i = 0; i < sent.length; i += pageSize) {
      if (i > 0) await this.#sink.ready();
      if (this.#closing.signal.aborted) return;
      const events = sent.slice(i, i + pageSize);
      this.#sink.events(events);
      // Whoever closes this and goes on elsewhere gets nothing twice
      this.#cursor = events.at(-1)?.id ?? this.#cursor;
    }
  }
}

function digestOf(events: DeliveredEvent[]): FeedDigest {
  const counts: Record<string, number> = {};
  for (const { kind } of events) counts[kind] = (counts[kind] ?? 0) + 1;
  return { from: events[0]?.id ?? '0-0', to: events.at(-1)?.id ?? '0-0', counts };
}
