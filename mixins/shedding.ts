import type { Service } from 'moleculer';
import { brokerConfig } from '../lib/broker-config.ts';
import type { Mixin } from '../lib/define-service.ts';
import { watchLoop } from '../lib/load-shedding.ts';

export interface Shedding {
  /** True when what was asked for has to be refused, which is then counted; `what` is a name of ours. */
  refuses(what: string): boolean;
}

/** `this.shedding`, for a door: its event loop is watched, and what it refuses is counted in `shed.total`. */
export const shedding = (door: 'rest' | 'socket'): Mixin<{ shedding: Shedding }> => {
  const watches = new WeakMap<Service, { stop(): void }>();
  return {
    created(this: Service) {
      const { metrics } = this.broker;
      metrics.register({
        type: 'counter',
        name: 'shed.total',
        labelNames: ['door', 'what'],
        description: 'Refused because the event loop was late: an SOS goes first',
      });
      // Counted here first: a metric costs as much as a refusal
      const refused = new Map<string, number>();
      const loop = watchLoop(
        { lateMs: brokerConfig(this.broker).shedWhenLateMs },
        (isOn) =>
          this.logger.warn(isOn ? 'Too much to do: only SOS is taken' : 'Everything is taken again', {
            door,
          }),
        () => {
          for (const [what, count] of refused) metrics.increment('shed.total', { door, what }, count);
          refused.clear();
        },
      );
      watches.set(this, loop);
      const shed: Shedding = {
        refuses(what) {
          if (loop.shedding) refused.set(what, (refused.get(what) ?? 0) + 1);
          return loop.shedding;
        },
      };
      Object.assign(this, { shedding: shed });
    },
    stopped(this: Service) {
      watches.get(this)?.stop();
    },
  };
};
