/**
 * By turns among the nodes that have been heard of lately; among all when that can be said of none. A machine that vanishes
 * closes no connection, so NATS believes in it, and Moleculer does until 4 to 8 s of heartbeats are missed. To call it dead
 * sooner would be wrong too often on a busy machine, but to prefer others meanwhile harms nobody.
 */
import { Strategies } from 'moleculer';

type Endpoint = Parameters<Strategies.RoundRobin['select']>[0][number];

/** Heartbeats come every 0.5 to 1.5 s and are noted to the second, s. */
const heardWithinS = 3;

/** For `registry.strategy`. */
export class HeardRoundRobin extends Strategies.RoundRobin {
  override select(list: Endpoint[]): Endpoint {
    const now = process.uptime();
    const heard = list.filter(({ node }) => node.local || now - node.lastHeartbeatTime < heardWithinS);
    return super.select(heard.length > 0 ? heard : list);
  }
}
