/**
 * NATS holds nothing up: a process starts without it, serves what it can while it is away, is whole again when it
 * comes, and stops without it. Moleculer alone waits for it before any service starts, tries each 5 s for ever, and
 * keeps sending into a lost connection.
 */
import type { ServiceBroker } from 'moleculer';
import { Errors } from 'moleculer';
import { Events, type NatsConnection } from 'nats';
import { pause, soonest } from './backoff.ts';

/** NATS' own settings, ms: moleculer passes them on. */
export const natsOptions = (url: string) => ({
  url,
  timeout: 2000,
  // After a loss, for ever, half of it by chance so that a whole fleet does not come at once
  maxReconnectAttempts: -1,
  reconnectTimeWait: 250,
  reconnectJitter: 250,
  // A server that hangs is noticed in some 10 s; a closed connection at once
  pingInterval: 5000,
  maxPingOut: 2,
});

/** When one node is back, the others are after so long at most, ms: the longest wait above, and connecting. */
const allBackMs = 800;

/** The start goes on without NATS after this time, ms. A connection that works takes some 600. */
const startWithinMs = 1500;
/** What is still to be sent when the process stops may take this long, ms. */
const flushWithinMs = 1000;
/** A node that has not answered by then hangs, or is dead and not missed yet, ms. */
const heardWithinMs = 1000;
/** Between two tries of the first connection, ms: doubled each time up to the second, half of it by chance. */
const [firstPauseMs, longestPauseMs] = [200, 2000];

/** To be called when the broker has been made and before it starts. Does nothing for a broker alone in its process. */
export function loosenNats(broker: ServiceBroker): void {
  const { transit } = broker;
  if (!transit) return;
  // The transporter is moleculer's NATS, whose types leave the client out
  const tx = transit.tx as typeof transit.tx & { client: NatsConnection | null };
  const stopped = new AbortController();
  const connectOnce = tx.connect.bind(tx);
  const disconnect = tx.disconnect.bind(tx);
  const prepublish = tx.prepublish.bind(tx);
  const connectTransit = transit.connect.bind(transit);
  const disconnectTransit = transit.disconnect.bind(transit);
  /** Resolves when the connection is back. */
  let back = Promise.withResolvers<void>();

  function lost(): void {
    if (!tx.connected) return;
    tx.connected = false;
    transit?.logger.warn('NATS is lost');
    if (transit) transit.connected = false;
    back = Promise.withResolvers();
  }

  function found(): void {
    tx.connected = true;
    if (transit) transit.connected = true;
    back.resolve();
    transit?.logger.warn('NATS is back');
    transit
      ?.afterConnect(true)
      .catch((error: unknown) => transit.logger.error('Other nodes could not be asked', { error }));
  }

  /** Until the connection is closed for good, by us or because NATS refuses us. */
  async function watch(client: NatsConnection): Promise<void> {
    for await (const { type } of client.status()) {
      if (stopped.signal.aborted) return;
      if (type === Events.Disconnect) lost();
      else if (type === Events.Reconnect) found();
    }
    if (stopped.signal.aborted) return;
    lost();
    await connectFirst();
    await transit?.discoverer.sendLocalNodeInfo();
  }

  /** Tries until NATS is there; only a stop ends it without. */
  async function connectFirst(): Promise<void> {
    for (let waitMs = firstPauseMs; !stopped.signal.aborted; waitMs = Math.min(2 * waitMs, longestPauseMs)) {
      try {
        await connectOnce(() => undefined);
        const { client } = tx;
        if (!client) continue;
        if (stopped.signal.aborted) {
          await client.close();
          return;
        }
        watch(client).catch((error: unknown) => transit?.logger.error('NATS is not watched', { error }));
        back.resolve();
        return;
      } catch {
        // Moleculer has logged it
        await tx.client?.close();
        await pause(waitMs * (0.5 + Math.random() / 2), stopped.signal);
      }
    }
  }

  tx.connect = connectFirst;

  tx.prepublish = async (packet) => {
    if (!tx.connected && !stopped.signal.aborted) {
      // Sent later, a request would run when its caller has long given up
      if (packet.type === 'REQ') throw new Errors.BrokerDisconnectedError('NATS is away');
      if (packet.type === 'EVENT') transit.logger.warn('An event is lost: NATS is away');
      // Only for an answer somebody may still wait; an event is a hint, and the rest is repeated by itself
      if (packet.type !== 'RES') return;
      await soonest(back.promise, broker.options.requestTimeout ?? 0);
      // Whoever asked comes back at a moment of its own: before that nobody would hear the answer
      await pause(allBackMs, stopped.signal);
    }
    return prepublish(packet);
  };

  transit.connect = async () => {
    const connected = connectTransit().then(async () => {
      // Nodes that came to NATS before this one know it from here on, and not only after its first heartbeat
      await transit.discoverer.sendLocalNodeInfo();
    });
    connected.catch((error: unknown) => transit.logger.error('This node could not be told', { error }));
    await soonest(connected, startWithinMs);
    if (!transit.connected) transit.logger.warn('NATS is not there; the start goes on without it');
  };

  tx.disconnect = async () => {
    const { client } = tx;
    // A flush can hang or fail when the connection broke meanwhile: the stop goes on
    if (tx.connected) {
      const flushed = Promise.resolve(disconnect());
      await soonest(
        flushed.catch((error: unknown) => transit.logger.warn('NATS was not flushed', { error })),
        flushWithinMs,
      );
    }
    await client?.close();
  };

  transit.disconnect = () => {
    stopped.abort();
    back.resolve();
    return disconnectTransit();
  };
}

/**
 * For a stop, once the others were told that nothing is here any more: resolves when each has heard it, or is gone, after a
 * second at the latest. NATS keeps the order, so its PONG comes behind all that it still asked of this node. Without it, what
 * a busy node sends before it looks would find nobody, and fail.
 */
export async function untilOthersHeard(broker: ServiceBroker): Promise<void> {
  const { transit, localBus, registry, nodeID, logger } = broker;
  if (!transit?.connected) return;
  const nodes = registry.getNodeList({ onlyAvailable: true, withServices: false });
  const waiting = new Set(nodes.map(({ id }) => id).filter((id) => id !== nodeID));
  if (waiting.size === 0) return;
  const all = Promise.withResolvers<void>();
  const done = (id: string) => {
    waiting.delete(id);
    if (waiting.size === 0) all.resolve();
  };
  const answered = (pong: { nodeID: string }) => done(pong.nodeID);
  const left = ({ node }: { node: { id: string } }) => done(node.id);
  localBus.on('$node.pong', answered);
  localBus.on('$node.disconnected', left);
  const pings = [...waiting].map((id) => transit.sendPing(id));
  await Promise.all([...pings, soonest(all.promise, heardWithinMs)]);
  localBus.off('$node.pong', answered);
  localBus.off('$node.disconnected', left);
  if (waiting.size > 0) logger.warn('Nodes have not heard of the stop', { nodes: [...waiting] });
}
