/** What a benchmark answers, and how its figures are told. */

/** A figure that a requirement names, and whether it was reached. */
export interface Target {
  /** `R8.5` */
  requirement: string;
  /** What was asked, with its unit. */
  asked: string;
  measured: number;
  met: boolean;
}

/** Figures by name; a name ends with its unit (`p99Ms`, `perS`). */
export type Figures = Record<string, number>;

/** One run. `ratio` holds only what is set against `baseline`, above 1 where ours is better. */
export interface BenchResult {
  name: string;
  /** What should have arrived, was right or was there, and was not. */
  lost: number;
  doubled: number;
  figures: Figures;
  /** The other way of doing it, measured in the same run. */
  baseline: Figures;
  ratio: Figures;
  targets: Target[];
  /** What a reader must know to judge the figures. */
  notes: string[];
}

/** `quick`: a small run that shows that the benchmark works; its figures are rough. */
export type Bench = (options: { quick: boolean }) => Promise<BenchResult>;

/** A target that is met at or below `limit`. */
export const atMost = (requirement: string, what: string, measured: number, limit: number): Target => ({
  requirement,
  asked: `${what}: at most ${limit}`,
  measured,
  // Nothing measured is nothing reached
  met: measured <= limit,
});

/** A target that is met at or above `limit`. */
export const atLeast = (requirement: string, what: string, measured: number, limit: number): Target => ({
  requirement,
  asked: `${what}: at least ${limit}`,
  measured,
  met: measured >= limit,
});

const rounded = (value: number): number => Number(value.toPrecision(4));
const roundedAll = (figures: Figures): Figures =>
  Object.fromEntries(Object.entries(figures).map(([name, value]) => [name, rounded(value)]));

/** Passed: every target met, nothing lost and nothing doubled. */
export const passed = ({ lost, doubled, targets }: BenchResult): boolean =>
  lost === 0 && doubled === 0 && targets.every(({ met }) => met);

/** The one line of `--json`. */
export const jsonLine = ({ name, lost, doubled, ...result }: BenchResult, machine: string): string =>
  JSON.stringify({
    name,
    machine,
    lost,
    doubled,
    figures: roundedAll(result.figures),
    baseline: roundedAll(result.baseline),
    ratio: roundedAll(result.ratio),
  });

/** The same for a reader, as a Markdown table that can be kept. */
export function tableText(result: BenchResult, machine: string): string {
  const { name, lost, doubled, figures, baseline, ratio, targets, notes } = result;
  const names = [...new Set([figures, baseline, ratio].flatMap((part) => Object.keys(part)))];
  const cell = (part: Figures, key: string) => {
    const value = part[key];
    return value === undefined ? '' : String(rounded(value));
  };
  return [
    `${name} on ${machine}`,
    '',
    '| | ours | baseline | ratio |',
    '|---|---|---|---|',
    ...names.map(
      (key) => `| ${key} | ${cell(figures, key)} | ${cell(baseline, key)} | ${cell(ratio, key)} |`,
    ),
    '',
    `Lost ${lost}, doubled ${doubled}.`,
    ...notes,
    ...targets.map(
      ({ requirement, asked, measured, met }) =>
        `${met ? 'met   ' : 'MISSED'} ${requirement} ${asked}; measured ${rounded(measured)}`,
    ),
  ].join('\n');
}
