/**
 * `/share`: one trip, or one alert, for whoever has its link. Sends its state and positions, nothing of who is on it, and
 * takes nothing. A link ends when it expires, is revoked, or some time after its trip.
 */
import type { Namespace, Server, Socket } from 'socket.io';
import type { ActionResult } from '../../contracts/index.ts';
import type { Update } from '../../contracts/location.ts';
import type { SharedPosition, ShareServerToClient } from '../../contracts/socket.ts';
import type { Calls, Log } from '../../lib/context.ts';
import { AppError, publicError } from '../../lib/errors.ts';
import type { RateLimit } from '../../lib/rate-limit.ts';
import { type Share, type Shares, shareGraceMs } from '../../mixins/shares.ts';
import { handshake } from './handshake.ts';
import { tripRoom } from './socket-handlers.ts';
import { TokenBucket } from './token-bucket.ts';

interface ShareState {
  share: Share;
  /** The link's end, or some time after the trip's, ms. */
  endsAt: number;
  /** When the link was last seen to be good, ms. */
  checkedAt: number;
  /** Has the client been told how things are? */
  told: 'no' | 'in-progress' | 'yes';
}

type Nothing = Record<string, never>;
type ShareSocket = Socket<Nothing, ShareServerToClient, Nothing, ShareState>;
type ShareNamespace = Namespace<Nothing, ShareServerToClient, Nothing, ShareState>;
type TripState = ActionResult<'trips.status'>;

export interface ShareOptions {
  shares: Shares;
  calls: Calls;
  /** Counts handshakes of an address. */
  limit: RateLimit;
  addressOf(socket: ShareSocket): string;
  /** Resolves when the trip's next update will reach this node's room. */
  watch(tripId: string): Promise<void>;
  logger: Log;
}

/** Open links are looked up again after this time, ms: the hint that one was revoked can be lost. */
const checkEveryMs = 30_000;
/** What could not be told is tried again after this time, ms. */
const tellAgainMs = 5000;

export const shareNamespace = (io: Server): ShareNamespace => io.of('/share');

/** The positions of whoever raised an alert, for those who have its link. */
export const alertRoom = (alertId: string): string => `alert:${alertId}`;
const shareRoom = (hash: string): string => `share:${hash}`;

/**
 * When a link ends for the trip's sake, ms: even if nobody could write that down when the trip ended. An alert's link goes
 * on: it may be the attacker who ends the trip.
 */
const endBy = ({ alertId }: Share, { status, at }: TripState): number =>
  alertId === null && (status === 'ended' || status === 'cancelled') ? at + shareGraceMs : Infinity;

export class ShareDoor {
  readonly #namespace: ShareNamespace;
  readonly #options: ShareOptions;

  constructor(io: Server, options: ShareOptions) {
    this.#namespace = shareNamespace(io);
    this.#options = options;
    this.#namespace.use(handshake((socket) => this.#admit(socket)));
    this.#namespace.on('connection', (socket) => {
      const patience = new TokenBucket(1, 20, Date.now());
      // No `next`: whatever it sends ends here
      socket.use((packet: unknown[]) => {
        if (!patience.take(Date.now())) return void socket.disconnect(true);
        const answer = packet.at(-1);
        const error = publicError(new AppError('UNKNOWN_EVENT'));
        if (typeof answer === 'function') Reflect.apply(answer, undefined, [{ ok: false, error }]);
      });
      void this.#welcome(socket);
    });
  }

  /** A trip's update, to those who have its link. */
  deliver(update: Update): void {
    // Without a look at the room each update would be encoded for nobody
    const room = tripRoom(update.tripId);
    if (this.#namespace.adapter.rooms.has(room)) this.#namespace.local.to(room).emit('location', update);
  }

  /** Where somebody who raised an alert is, to those who have its link. */
  deliverAlert(alertId: string, position: SharedPosition): void {
    const room = alertRoom(alertId);
    if (this.#namespace.adapter.rooms.has(room)) this.#namespace.local.to(room).emit('location', position);
  }

  tripChanged(change: TripState & { tripId: string }): void {
    const room = tripRoom(change.tripId);
    for (const id of this.#namespace.adapter.rooms.get(room) ?? []) {
      const { data } = this.#namespace.sockets.get(id) ?? {};
      if (data) data.endsAt = Math.min(data.endsAt, endBy(data.share, change));
    }
    this.#namespace.local.to(room).emit('trip', change);
  }

  /** The link was revoked. */
  cut(hash: string): void {
    this.#namespace.local.in(shareRoom(hash)).disconnectSockets(true);
  }

  /** Cuts those whose links have ended, and tells those who could not be told yet. */
  async check(now = Date.now()): Promise<void> {
    for (const socket of this.#namespace.sockets.values()) {
      const { share, endsAt, checkedAt, told } = socket.data;
      if (endsAt <= now) socket.disconnect(true);
      else if (now - checkedAt >= (told === 'no' ? tellAgainMs : checkEveryMs)) {
        socket.data.checkedAt = now;
        const found = await this.#options.shares.byHash(share.hash);
        if (!found) socket.disconnect(true);
        else {
          socket.data.endsAt = Math.min(socket.data.endsAt, found.expiresAt);
          // Not waited for: what is away must not keep others' links open
          if (told === 'no') void this.#welcome(socket);
        }
      }
    }
  }

  async #admit(socket: ShareSocket): Promise<void> {
    const { shares } = this.#options;
    await this.#options.limit(this.#options.addressOf(socket));
    const share = await shares.resolve(socket.handshake.auth['share']);
    if (!share) throw new AppError('SHARE_INVALID');
    const state = await this.#stateOf(share);
    const endsAt = Math.min(share.expiresAt, state ? endBy(share, state) : Infinity);
    if (endsAt <= Date.now()) throw new AppError('SHARE_INVALID');
    socket.data = { share, endsAt, checkedAt: Date.now(), told: 'no' };
  }

  /** Null when there is no trip, or nobody can say: an alert's link must work on the worst day. */
  async #stateOf({ tripId, hash }: Share): Promise<TripState | null> {
    if (tripId === null) return null;
    try {
      return await this.#options.calls.call('trips.status', { id: tripId }, { timeout: 2000 });
    } catch (error) {
      this.#options.logger.warn('The state of a shared trip is not known', { tripId, link: hash, error });
      return null;
    }
  }

  async #welcome(socket: ShareSocket): Promise<void> {
    const { tripId, alertId, hash } = socket.data.share;
    socket.data.told = 'in-progress';
    try {
      await socket.join([
        shareRoom(hash),
        ...(tripId === null ? [] : [tripRoom(tripId)]),
        ...(alertId === null ? [] : [alertRoom(alertId)]),
      ]);
      if (alertId !== null) await this.#tellAlert(socket, alertId);
      socket.data.told = tripId === null || (await this.#tell(socket, tripId)) ? 'yes' : 'no';
    } catch (error) {
      socket.data.told = 'no';
      this.#options.logger.warn('Who follows a link waits for its trip', { tripId, alertId, error });
    }
  }

  /** Where whoever raised the alert is; what is not known yet comes with the next position. */
  async #tellAlert(socket: ShareSocket, alertId: string): Promise<void> {
    try {
      const { position } = await this.#options.calls.call('sos.whereabouts', { id: alertId });
      if (position) socket.emit('location', position);
    } catch (error) {
      this.#options.logger.warn('Where an alert is could not be told', { alertId, error });
    }
  }

  /**
   * How the trip stands, and where. In the room already: what comes between is delivered twice rather than not at all.
   * False when nobody can say how it stands.
   */
  async #tell(socket: ShareSocket, tripId: string): Promise<boolean> {
    const state = await this.#stateOf(socket.data.share);
    if (state) {
      socket.emit('trip', { tripId, ...state });
      socket.data.endsAt = Math.min(socket.data.endsAt, endBy(socket.data.share, state));
    }
    await this.#options.watch(tripId);
    const { last } = await this.#options.calls.call('location.missed', { tripId });
    if (last) socket.emit('location', last);
    return state !== null;
  }
}
