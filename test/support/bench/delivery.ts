/** What became of a trip's updates: the books of one driver and those who watch. */

/** `timestamp`: the update's own, ms, growing and so its name; `sentAt` by performance.now(). */
export interface Sent {
  timestamp: number;
  sentAt: number;
}

/** `at`: when the server processed it, ms; `receivedAt` by performance.now(), `ageMs` from `at` to the watcher. */
export interface Received {
  timestamp: number;
  at: number;
  receivedAt: number;
  ageMs: number;
}

export interface Delivery {
  sent: number;
  deliveries: number;
  /** Updates that no watcher got, each in favour of a newer one that was processed soon enough. */
  superseded: number;
  /** Updates that a watcher did not get though another did, or though nothing newer took their place in time; per watcher. */
  lost: number;
  /** Got once more by the same watcher. */
  doubled: number;
  sentToReceivedMs: number[];
  processedToReceivedMs: number[];
}

export const noDelivery = (): Delivery => ({
  sent: 0,
  deliveries: 0,
  superseded: 0,
  lost: 0,
  doubled: 0,
  sentToReceivedMs: [],
  processedToReceivedMs: [],
});

/**
 * The books of one trip; `sent` in order of time, `watchers` in any. A newer update may stand for one that did not come if it
 * was processed at most `supersededWithinMs` after that one was sent; 0: each has to come.
 */
export function deliveryOf(
  sent: readonly Sent[],
  watchers: readonly (readonly Received[])[],
  supersededWithinMs: number,
): Delivery {
  const delivery = { ...noDelivery(), sent: sent.length };
  const first = watchers.map((received) => {
    const byTimestamp = new Map<number, Received>();
    for (const one of received) {
      if (byTimestamp.has(one.timestamp)) delivery.doubled++;
      else byTimestamp.set(one.timestamp, one);
    }
    return byTimestamp;
  });
  /** What each watcher got next, seen from the end. */
  const newer: (Received | undefined)[] = watchers.map(() => undefined);
  for (const { timestamp, sentAt } of sent.toReversed()) {
    const got = first.map((byTimestamp) => byTimestamp.get(timestamp));
    const someHaveIt = got.some((one) => one !== undefined);
    let missing = 0;
    for (const [n, one] of got.entries()) {
      const next = newer[n];
      if (!one && (someHaveIt || !next || next.at - timestamp > supersededWithinMs)) missing++;
      if (!one) continue;
      newer[n] = one;
      delivery.deliveries++;
      delivery.sentToReceivedMs.push(one.receivedAt - sentAt);
      delivery.processedToReceivedMs.push(one.ageMs);
    }
    delivery.lost += missing;
    if (!someHaveIt && missing === 0) delivery.superseded++;
  }
  return delivery;
}

/** Adds `more` to `sum`. */
export function addDelivery(sum: Delivery, more: Delivery): void {
  sum.sent += more.sent;
  sum.deliveries += more.deliveries;
  sum.superseded += more.superseded;
  sum.lost += more.lost;
  sum.doubled += more.doubled;
  for (const ms of more.sentToReceivedMs) sum.sentToReceivedMs.push(ms);
  for (const ms of more.processedToReceivedMs) sum.processedToReceivedMs.push(ms);
}
