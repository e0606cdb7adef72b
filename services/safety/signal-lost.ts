import type { SafetyRules } from './rules.ts';

export interface SignalState {
  /** When it was last heard of (the server's time); its start, before the first update. */
  readonly heardAt: number;
  /** While it is lost: since when it has been heard of again without a pause. */
  readonly backSince: number;
  readonly suspected: boolean;
}

export const heardFirst = (at: number): SignalState => ({ heardAt: at, backSince: at, suspected: false });

/** An update came at `at`, the server's time. */
export function seeSignal(state: SignalState, at: number, rules: SafetyRules['signal']): SignalState {
  const backSince = at - state.heardAt > rules.pauseMs ? at : state.backSince;
  return { heardAt: at, backSince, suspected: state.suspected && at - backSince < rules.clearAfterMs };
}

/**
 * Time passes: lost once nothing came for longer than `lostAfterMs`. `hearingSince`: silence before then was ours (ms); see
 * isDeaf.
 */
export function judgeSignal(
  state: SignalState,
  now: number,
  rules: SafetyRules['signal'],
  hearingSince: number,
): SignalState {
  const silentMs = now - Math.max(state.heardAt, hearingSince);
  return state.suspected || silentMs <= rules.lostAfterMs ? state : { ...state, suspected: true };
}

/** So many trips, and more than half of them silent for so long (ms): it is we who do not hear. */
const [deafFrom, deafShare, silentForMs] = [20, 0.5, 60_000];

/**
 * Are most trips silent at once? Then a Redis, a broker or a network of ours is the likelier cause, and thousands of riders
 * must not be asked, nor thousands of alarms raised, among which a true one is lost.
 */
export function isDeaf(heardAt: readonly number[], now: number): boolean {
  const silent = heardAt.filter((at) => now - at > silentForMs).length;
  return heardAt.length >= deafFrom && silent > deafShare * heardAt.length;
}
