import type { ServiceBroker } from 'moleculer';

type Check = () => Promise<void>;

/** What /readyz answers: may traffic come, and how is each thing that the process leans on? */
export interface Readiness {
  ready: boolean;
  state: 'starting' | 'ready' | 'draining';
  /** `ok`, or what is wrong in a word or two. */
  checks: Record<string, string>;
}

/** A process's state and its checks; mixins add one for whatever they connect to. */
export class Health {
  state: Readiness['state'] = 'starting';
  readonly #checks = new Map<string, Check>();
  readonly #drains: (() => Promise<void>)[] = [];
  readonly #awaited: Promise<void>[] = [];

  /** `check` rejects when the thing cannot be used; several under one name must all pass. */
  add(name: string, check: Check): void {
    const others = this.#checks.get(name);
    this.#checks.set(name, others ? async () => void (await Promise.all([others(), check()])) : check);
  }

  /** The process is not ready before this has ended, well or not, also when all its services have started. */
  readyAfter(work: Promise<void>): void {
    this.#awaited.push(work);
  }

  /** All services have started. */
  async started(): Promise<void> {
    await Promise.allSettled(this.#awaited);
    if (this.state === 'starting') this.state = 'ready';
  }

  /** `drain` runs when the process begins to stop, while every service still answers. */
  onDrain(drain: () => Promise<void>): void {
    this.#drains.push(drain);
  }

  /** No new traffic from here on. Rejects after every drain has run, if one failed. */
  async drain(): Promise<void> {
    this.state = 'draining';
    const failed = (await Promise.allSettled(this.#drains.map((drain) => drain()))).find(
      (r) => r.status === 'rejected',
    );
    if (failed) throw failed.reason;
  }

  /**
   * Really asks everything, at most 500 ms each. A failing check does not make the process unready: the balancer
   * would close every door to an SOS.
   */
  async report(): Promise<Readiness> {
    const results = await Promise.all(
      [...this.#checks].map(async ([name, check]) => {
        let timer: NodeJS.Timeout | undefined;
        const late = new Promise<string>((resolve) => {
          timer = setTimeout(resolve, 500, 'no answer in 500 ms');
        });
        const asked = check().then(
          () => 'ok',
          () => 'unreachable',
        );
        const result = await Promise.race([asked, late]);
        clearTimeout(timer);
        return [name, result] as const;
      }),
    );
    return { ready: this.state === 'ready', state: this.state, checks: Object.fromEntries(results) };
  }
}

const healths = new WeakMap<object, Health>();

/** The health of the process that a broker runs. */
export function healthOf(broker: ServiceBroker): Health {
  const health = healths.get(broker) ?? new Health();
  healths.set(broker, health);
  return health;
}
