/**
 * When a door refuses everything but SOS: as soon as its event loop has been late for a while, since whatever waits in
 * that loop an SOS waits behind.
 */

/** `shedding` since when it was late at every look, or not late; times in ms. */
export interface ShedState {
  shedding: boolean;
  /** Since when every look has spoken for the other state; null when the last one did not. */
  since: number | null;
}

export interface ShedLimits {
  /** The loop is late from here on, ms; it is calm again below half of that. */
  lateMs: number;
}

/** Late for so long, it sheds; calm for so long, it takes everything again, ms. A pause (one GC, one start) is no load. */
const lateForMs = 200;
const calmForMs = 500;

export const calm: ShedState = { shedding: false, since: null };

/** The state after a look that found the loop `lateByMs` late. */
export function nextShed(state: ShedState, lateByMs: number, now: number, { lateMs }: ShedLimits): ShedState {
  const { shedding } = state;
  const speaksForChange = shedding ? lateByMs < lateMs / 2 : lateByMs >= lateMs;
  if (!speaksForChange) return { shedding, since: null };
  // A loop that was late has been so since its last look at least
  const since = state.since ?? (shedding ? now : now - lateByMs);
  const isLongEnough = now - since >= (shedding ? calmForMs : lateForMs) && state.since !== null;
  return isLongEnough ? { shedding: !shedding, since: null } : { shedding, since };
}

const lookEveryMs = 20;

/** Looks at this process's event loop; `onLook` after each look. `stop` ends it. */
export function watchLoop(
  limits: ShedLimits,
  onChange: (shedding: boolean) => void,
  onLook: () => void = () => {},
): { readonly shedding: boolean; stop(): void } {
  let state = calm;
  let due = performance.now() + lookEveryMs;
  const timer = setInterval(() => {
    const now = performance.now();
    const before = state;
    state = nextShed(state, Math.max(0, now - due), now, limits);
    due = now + lookEveryMs;
    if (state.shedding !== before.shedding) onChange(state.shedding);
    onLook();
  }, lookEveryMs).unref();
  return {
    get shedding() {
      return state.shedding;
    },
    stop: () => clearInterval(timer),
  };
}
