/**
 * A tick is spread out: in each of its slices a part of the trips is processed, each trip once a tick. All at once would be a
 * burst for Redis, gateways and phones, and the last of it late. A batch has a price of its own, though: with a dozen updates it
 * costs Redis three times as much an update as with a hundred. So slices with little in them are processed together.
 */

/** Updates of a batch that is large enough, about. */
const worthIt = 200;

const powerOfTwoUpTo = (most: number): number => 2 ** Math.floor(Math.log2(Math.max(1, most)));

/** Into how many slices a tick of so many ms is cut: a power of two. */
export const slicesOf = (tickMs: number): number => powerOfTwoUpTo(Math.min(16, tickMs / 50));

/** How many neighbours are handed on together, for so many updates a tick: a power of two, so that groups fall on one another. */
export function groupSize(updates: number, slices: number): number {
  return updates === 0 ? slices : powerOfTwoUpTo(Math.min(slices, (worthIt * slices) / updates));
}

/**
 * The slices whose time it is at the end of the `n`th. Where the groups of the tick before were of another size their time is
 * kept once more: no slice waits for longer than a tick.
 */
export function dueAfter(n: number, sizes: readonly [now: number, before: number]): number[] {
  const size = Math.max(0, ...sizes.filter((each) => (n + 1) % each === 0));
  return Array.from({ length: size }, (_, i) => n + 1 - size + i);
}
