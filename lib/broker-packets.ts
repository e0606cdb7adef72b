/**
 * What comes over NATS is of our own fleet, and read with care all the same: what is no packet is dropped, counted and
 * mentioned now and then. Moleculer alone logs each with what is in it, and takes one of a wrong shape for a good one.
 */
import type { ServiceBroker } from 'moleculer';

type Payload = Record<string, unknown>;

const isText = (value: unknown): value is string => typeof value === 'string' && value !== '';
const isObject = (value: unknown): value is Payload =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
/** Becomes a part of a subject, where NATS takes neither spaces nor wildcards. */
const isName = (value: unknown): boolean => isText(value) && /^[^\s*>]{1,200}$/.test(value);

/** What each type must have, beside what all have: `PacketPayload` of Moleculer. */
const shapes: Record<string, (payload: Payload) => boolean> = {
  REQ: ({ id, action }) => isText(id) && isName(action),
  RES: ({ id, success }) => isText(id) && typeof success === 'boolean',
  EVENT: ({ event, groups }) => isName(event) && (groups == null || Array.isArray(groups)),
  INFO: ({ services, instanceID }) =>
    isText(instanceID) && Array.isArray(services) && services.every((service) => isObject(service)),
  PING: ({ time }) => Number.isFinite(time),
  PONG: ({ time, arrived }) => Number.isFinite(time) && Number.isFinite(arrived),
};

/** Is it a packet of this type and version? `payload` may be anything. */
const isPacket = (type: string, payload: unknown, version: string): payload is Payload =>
  isObject(payload) &&
  payload['ver'] === version &&
  isName(payload['sender']) &&
  (shapes[type]?.(payload) ?? true);

/** Between two lines in the log, ms. */
const mentionEveryMs = 10_000;

/** To be called when the broker has been made and before it starts. Does nothing for a broker alone in its process. */
export function guardPackets(broker: ServiceBroker): void {
  const { transit, metrics } = broker;
  if (!transit) return;
  // Of moleculer's transporter, whose types leave these out
  const tx = transit.tx as unknown as {
    deserialize(type: string, bytes: Buffer): { payload: unknown };
    messageHandler(type: string, packet: { payload: unknown }): Promise<unknown>;
    incomingMessage(type: string, bytes: Buffer): Promise<unknown>;
  };
  metrics.register({
    type: 'counter',
    name: 'broker.packets.refused.total',
    labelNames: ['type'],
    description: 'What came over NATS and was no packet of ours, or failed in a way that nobody foresaw',
  });
  let unmentioned = 0;
  let mentionedAt = -Infinity;
  /** Nothing of what was in it: nobody knows what that is. */
  const refuse = (type: string, error?: unknown): void => {
    metrics.increment('broker.packets.refused.total', { type });
    unmentioned++;
    const now = performance.now();
    if (now - mentionedAt < mentionEveryMs) return;
    const name = error instanceof Error ? error.name : undefined;
    transit.logger.warn('What comes over NATS is no packet of ours', {
      type,
      count: unmentioned,
      error: name,
    });
    mentionedAt = now;
    unmentioned = 0;
  };
  tx.incomingMessage = async (type, bytes) => {
    try {
      const packet = tx.deserialize(type, bytes);
      if (!isPacket(type, packet.payload, broker.PROTOCOL_VERSION)) return refuse(type);
      return await tx.messageHandler(type, packet);
    } catch (error) {
      return refuse(type, error);
    }
  };
}
