/** A queue whose first can be taken away without moving the rest each time. */
class Fifo<T> {
  #items: T[] = [];
  #start = 0;

  get length(): number {
    return this.#items.length - this.#start;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  shift(): T | undefined {
    const first = this.#items[this.#start];
    this.#start += 1;
    // Moving the rest once it is the smaller half costs each item one move
    if (this.#start * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#start);
      this.#start = 0;
    }
    return first;
  }

  *newestFirst(): Generator<T> {
    for (let index = this.#items.length - 1; index >= this.#start; index -= 1) {
      const item = this.#items[index];
      if (item !== undefined) yield item;
    }
  }
}

/**
 * The newest `max` items, found by a key of each without looking through all. Adding one and forgetting the oldest take
 * constant time.
 */
export class Recent<T extends object> {
  readonly #max: number;
  readonly #keyOf: (item: T) => string;
  readonly #all = new Fifo<T>();
  readonly #byKey = new Map<string, Fifo<T>>();

  constructor(max: number, keyOf: (item: T) => string) {
    this.#max = max;
    this.#keyOf = keyOf;
  }

  add(item: T): void {
    const key = this.#keyOf(item);
    const same = this.#byKey.get(key) ?? new Fifo<T>();
    same.push(item);
    this.#byKey.set(key, same);
    this.#all.push(item);
    if (this.#all.length > this.#max) this.#forgetOldest();
  }

  /** Newest first: all, or those with this key. */
  *newestFirst(key?: string): Generator<T> {
    const items = key === undefined ? this.#all : this.#byKey.get(key);
    if (items) yield* items.newestFirst();
  }

  /** The newest with this key. */
  newest(key: string): T | undefined {
    for (const item of this.newestFirst(key)) return item;
    return undefined;
  }

  #forgetOldest(): void {
    const oldest = this.#all.shift();
    if (!oldest) return;
    const key = this.#keyOf(oldest);
    const same = this.#byKey.get(key);
    same?.shift();
    if (same?.length === 0) this.#byKey.delete(key);
  }
}
