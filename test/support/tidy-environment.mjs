import { setTimeout as sleep } from 'node:timers/promises';
import vm from 'node:vm';
import { TestEnvironment } from 'jest-environment-node';

/** How often each kind of resource keeps this process alive: sockets, servers, children, timers. */
function countResources() {
  const counts = new Map();
  for (const kind of process.getActiveResourcesInfo()) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return counts;
}

/** What has fired or was cleared still says that it is referenced. */
const keepsAlive = ({ timer }) => !timer._destroyed && timer.hasRef();

/** By whom it was set, and who called them. */
const whereSet = (name, stack) =>
  `a ${name} of${stack
    .split('\n')
    .slice(2, 6)
    .map((line) => line.replace(/^ *at /, ' < '))
    .join('')}`;

/**
 * A test file that leaves something open fails and says what, where Jest alone would hang (in one process) or
 * kill its worker and pass.
 */
export default class TidyEnvironment extends TestEnvironment {
  #isOver = false;
  #intervals = [];
  /** Timers that may still keep the process alive, and where they were set. */
  #timers = [];

  /**
   * In Jest's own context a Proxy is asked for each `Math`, `Date` or `Promise` that a module names (200 ns, as against 1);
   * this is a plain one.
   */
  constructor(...options) {
    const { createContext } = vm;
    vm.createContext = () => createContext(vm.constants.DONT_CONTEXTIFY);
    try {
      super(...options);
    } finally {
      vm.createContext = createContext;
    }
  }

  async setup() {
    await super.setup();
    this.#endTimersWithTheFile();
    // Made on first use, and not for the test to close
    void [process.stdout, process.stderr];
    this.before = countResources();
  }

  /** What a failed test left open is its consequence: to report it would hide the failure itself. */
  async handleTestEvent(event) {
    if (event.name === 'hook_failure' || (event.name === 'test_done' && event.test.errors.length > 0))
      this.failed = true;
  }

  async teardown() {
    const left = await this.#leftOpen(3000);
    this.#isOver = true;
    for (const interval of this.#intervals.splice(0)) clearInterval(interval);
    await super.teardown();
    if (left.length === 0) return;
    const problem = `Left open after the last test: ${left.join(', ')}. Close in afterEach or afterAll what was opened.`;
    if (!this.failed) throw new Error(problem);
    // The later files of this process inherit it, and may be blamed for it
    process.stderr.write(`${problem} (A test of this file failed)\n`);
  }

  /**
   * Unreferenced timers keep no process alive and are not reported. But some run for ever (those of moleculer's metrics, also when
   * their broker has stopped): they would hold all modules of each file in memory, and take time from the later ones.
   */
  #endTimersWithTheFile() {
    for (const name of ['setTimeout', 'setInterval']) {
      const set = this.global[name];
      const setWithin = (...args) => {
        const timer = set(...args);
        if (this.#isOver) clearTimeout(timer);
        else if (name === 'setInterval') this.#intervals.push(timer);
        if (this.#timers.length >= 1000) this.#timers = this.#timers.filter(keepsAlive);
        this.#timers.push({ timer, set: new Error(name) });
        return timer;
      };
      // What util.promisify makes of it
      this.global[name] = Object.defineProperties(setWithin, Object.getOwnPropertyDescriptors(set));
    }
  }

  /** What is still open after `graceMs`: closing a socket takes a few turns. */
  async #leftOpen(graceMs) {
    const deadline = Date.now() + graceMs;
    for (;;) {
      const left = [];
      for (const [kind, count] of countResources()) {
        const more = count - (this.before.get(kind) ?? 0);
        if (more > 0) left.push(`${more} ${kind}`);
      }
      // Counts hide as many as Jest had of its own before the file
      for (const { set } of this.#timers.filter(keepsAlive)) left.push(whereSet(set.message, set.stack));
      if (left.length === 0 || Date.now() > deadline) return left;
      await sleep(50, undefined, { ref: false });
    }
  }
}
