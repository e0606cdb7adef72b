interface Waiting<T, R> {
  item: T;
  resolve: (result: R) => void;
  reject: (error: unknown) => void;
}

/**
 * Commits what arrives at the same time together: a burst costs little more than its largest group. What comes while
 * groups are under way waits for one of them to end, so an idle system answers at once.
 */
export class GroupCommit<T, R> {
  readonly #commit: (items: T[]) => Promise<(R | Error)[]>;
  readonly #maxSize: number;
  readonly #maxUnderWay: number;
  #waiting: Waiting<T, R>[] = [];
  #underWay = 0;
  #scheduled = false;

  /** `commit` answers for each item, in order, its result or its error; when it rejects, every item of that group does. */
  constructor(options: {
    commit: (items: T[]) => Promise<(R | Error)[]>;
    maxSize: number;
    maxUnderWay: number;
  }) {
    this.#commit = options.commit;
    this.#maxSize = options.maxSize;
    this.#maxUnderWay = options.maxUnderWay;
  }

  add(item: T): Promise<R> {
    return new Promise<R>((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject });
      this.#schedule();
    });
  }

  /** Rejects everything that no group has taken yet. */
  refuse(error: Error): void {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }

  /** After this turn of the event loop, so that what it brings goes together. */
  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      while (this.#waiting.length > 0 && this.#underWay < this.#maxUnderWay) {
        void this.#run(this.#waiting.splice(0, this.#maxSize));
      }
    });
  }

  async #run(group: Waiting<T, R>[]): Promise<void> {
    this.#underWay++;
    try {
      const results = await this.#commit(group.map(({ item }) => item));
      for (const [index, { resolve, reject }] of group.entries()) {
        const result = results[index];
        if (result === undefined) reject(new Error('No answer for this item'));
        else if (result instanceof Error) reject(result);
        else resolve(result);
      }
    } catch (error) {
      for (const { reject } of group) reject(error);
    } finally {
      this.#underWay--;
      if (this.#waiting.length > 0) this.#schedule();
    }
  }
}
