import type { Context, Middleware, Service, ServiceBroker } from 'moleculer';

type Handler = (this: unknown, ctx: Context) => Promise<unknown>;

/** Of one service, or of the calls to other nodes: how many are under way, and who waits for the last. */
class UnderWay {
  #count = 0;
  #waiting: (() => void)[] = [];

  begin(): void {
    this.#count++;
  }

  end(): void {
    this.#count--;
    if (this.#count > 0 || this.#waiting.length === 0) return;
    // What a bulkhead holds back begins right after
    setImmediate(() => {
      if (this.#count === 0) for (const resolve of this.#waiting.splice(0)) resolve();
    });
  }

  get count(): number {
    return this.#count;
  }

  /** Resolves when nothing is under way, or after `ms`. */
  async settled(ms: number): Promise<void> {
    if (this.#count === 0) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
      timer = setTimeout(resolve, ms);
    });
    clearTimeout(timer);
  }
}

/**
 * A stop waits for the actions and events that a service is working on, and for the calls to other nodes, at most `withinMs`
 * each. Instead of Moleculer's `tracking`, which looks through a list of all at the end of each: in a burst that is most of
 * the work.
 */
export function inFlight(withinMs: number): Middleware {
  const services = new WeakMap<Service, UnderWay>();
  const remote = new UnderWay();
  const of = (service: Service | null | undefined): UnderWay => {
    if (!service) return remote;
    const known = services.get(service) ?? new UnderWay();
    services.set(service, known);
    return known;
  };
  const count = (next: Handler): Handler =>
    async function counted(this: unknown, ctx) {
      const underWay = of(ctx.service);
      underWay.begin();
      try {
        return await next.call(this, ctx);
      } finally {
        underWay.end();
      }
    };
  const settle = async (underWay: UnderWay, { logger }: Pick<ServiceBroker, 'logger'>) => {
    await underWay.settled(withinMs);
    if (underWay.count > 0) logger.warn('A stop cuts off what is under way', { count: underWay.count });
  };
  return {
    name: 'in-flight',
    localAction: count,
    remoteAction: count,
    localEvent: count,
    serviceStopping: (service: Service) => settle(of(service), service),
    stopping: (broker: ServiceBroker) => settle(remote, broker),
  } as Middleware;
}
