/**
 * What was sent to a node that has died is known at once to be lost: NATS answers whoever publishes with a reply subject that
 * nobody listens (https://docs.nats.io/nats-concepts/core-nats/reqreply). So a request goes to another node, whatever it does, and
 * an event to another one of its group. Moleculer alone waits until heartbeats are missed, 4 to 8 s; nobody knows then whether
 * the action ran, and events are gone.
 */
import type { ServiceBroker } from 'moleculer';
import { Errors } from 'moleculer';
import type { NatsConnection } from 'nats';
import { pause } from './backoff.ts';

const noResponders = 503;
/** NATS answers in a millisecond or two: so long it is known what an event was, ms. */
const eventKeptMs = 2000;

interface Pending {
  nodeID: string;
  action: { name: string };
  reject(error: Error): void;
}

/** Of moleculer's transit and its NATS transporter, what their types leave out or say less of. */
interface Inside {
  client: NatsConnection | null;
  getTopicName(type: string, nodeID: string): string;
  send(topic: string, data: Buffer, meta: SendMeta): Promise<void>;
}
interface SentEvent {
  event: string;
  data: unknown;
  groups?: string[];
  broadcast: boolean;
  meta: object;
}
interface SendMeta {
  packet:
    | { type: 'REQ'; target: string | null; payload: { id: string } }
    | { type: 'EVENT'; target: string | null; payload: SentEvent }
    | { type: 'other'; target: string | null };
}

/** To be called when the broker has been made and before it starts. Does nothing for a broker alone in its process. */
export function heedNoResponders(broker: ServiceBroker): void {
  const { transit, registry, nodeID, logger, metrics } = broker;
  if (!transit) return;
  const tx = transit.tx as unknown as Inside;
  const pending = transit.pendingRequests as unknown as Map<string, Pending>;
  const giveUp = transit.removePendingRequestByNodeID.bind(transit);
  const disconnect = transit.disconnect.bind(transit);
  const send = tx.send.bind(tx);
  const stopped = new AbortController();
  const subject = tx.getTopicName('UNDELIVERED', nodeID);
  /** The node that is just being forgotten, which may still answer. */
  let spared: string | undefined;
  let listening: NatsConnection | undefined;
  /** In the order in which they were sent. */
  const events = new Map<string, { target: string; sent: SentEvent; at: number }>();
  let eventCount = 0;
  /** A node that is silent for so long is dead for Moleculer as well, ms. */
  const backWithinMs = (broker.options.heartbeatTimeout ?? 0) * 1000;

  metrics.register({
    type: 'counter',
    name: 'broker.undelivered.total',
    labelNames: ['type'],
    description:
      'Requests (REQ) and events (EVENT) that were sent to a node which had gone, and went elsewhere if there was one',
  });

  transit.removePendingRequestByNodeID = (id) => {
    if (id !== spared) giveUp(id);
  };

  const isAway = (id: string): boolean => !registry.nodes.get(id)?.available;

  /** Nobody calls it any more until it is heard of again. */
  function forget(id: string): void {
    spared = id;
    registry.nodes.disconnected(id, true);
    spared = undefined;
    void pause(backWithinMs, stopped.signal).then(() => {
      if (isAway(id) && !stopped.signal.aborted) giveUp(id);
    });
  }

  function undelivered(id: string): void {
    const event = events.get(id);
    const request = pending.get(id);
    const goneId = event?.target ?? request?.nodeID;
    if (goneId !== undefined && !isAway(goneId)) forget(goneId);
    if (request) {
      metrics.increment('broker.undelivered.total', { type: 'REQ' });
      pending.delete(id);
      request.reject(
        new Errors.ServiceNotAvailableError({ action: request.action.name, nodeID: request.nodeID }),
      );
    }
    if (!event) return;
    metrics.increment('broker.undelivered.total', { type: 'EVENT' });
    events.delete(id);
    const { event: name, data, groups = [], broadcast, meta } = event.sent;
    // What each node gets is not for another
    if (broadcast || groups.length === 0) return;
    broker
      .emit(name, data, { groups, meta })
      .catch((error: unknown) => logger.warn('An event is lost', { event: name, error }));
  }

  function keep(target: string, sent: SentEvent): string {
    const now = performance.now();
    for (const [id, { at }] of events) {
      if (now - at < eventKeptMs) break;
      events.delete(id);
    }
    const id = `event-${++eventCount}`;
    events.set(id, { target, sent, at: now });
    return id;
  }

  function listenOn(client: NatsConnection): void {
    listening = client;
    client.subscribe(`${subject}.*`, {
      callback(error, message) {
        if (error) logger.warn('Whether requests are lost is not known', { error });
        else if (message.headers?.code === noResponders)
          undelivered(message.subject.slice(subject.length + 1));
      },
    });
  }

  tx.send = async (topic, data, meta) => {
    const { client } = tx;
    const { packet } = meta;
    const isEither = packet.type === 'REQ' || packet.type === 'EVENT';
    if (!client || !isEither || packet.target === null) return send(topic, data, meta);
    // A connection that NATS has closed for good is followed by another
    if (listening !== client) listenOn(client);
    const id = packet.type === 'REQ' ? packet.payload.id : keep(packet.target, packet.payload);
    client.publish(topic, data, { reply: `${subject}.${id}` });
  };

  transit.disconnect = () => {
    stopped.abort();
    return disconnect();
  };
}
