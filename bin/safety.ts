/**
 * `npm run safety -- docs` replays the recorded drives through the safety checks and writes docs/safety-checks.md; `-- docs
 * --check` only says whether it is up to date.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { safetyReport, settingsReport } from '../test/support/safety/report.ts';

const path = 'docs/safety-checks.md';

const minutes = (value: number | null): string => (value === null ? '—' : value.toFixed(1));
const table = (head: string[], rows: (string | number)[][]): string =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

async function document(): Promise<string> {
  const { tracks, rides, hours, clean, faults } = await safetyReport();
  const settings = await settingsReport();
  const per10h = (count: number) => ((count / hours) * 10).toFixed(1);
  const sum = (of: (one: (typeof clean)[number]) => number) =>
    clean.reduce((total, one) => total + of(one), 0);
  return `# Safety checks

Made by \`npm run safety -- docs\`, which replays the recorded drives (test/support/traces) through the code that runs in
production, with its defaults. \`npm run check\` fails when this page is not what the code does.

## What is noticed
| kind | when | no longer | not when |
|---|---|---|---|
| \`long-stop\` | it stays within \`SAFETY_STOP_RADIUS_M\` for \`SAFETY_STOP_AFTER_MS\` | it has gone twice that radius | within 150 m of the destination: people get out |
| \`route-deviation\` | it drives about outside the corridor for \`SAFETY_DEVIATION_AFTER_MS\` | it is within 80 % of the corridor, or 300 m nearer to the destination than when it began | it comes nearer to the destination (100 m in that time); it stands still |
| \`signal-lost\` | nothing was heard for \`SAFETY_SIGNAL_LOST_AFTER_MS\`, or since the start | it has been heard for 30 s without a pause of 60 s | most trips of a process are silent at once (20 or more): then it is we who do not hear, which is logged and in \`safety_deaf\` |
| \`overdue\` | \`SAFETY_OVERDUE_FACTOR\` times the expected duration and \`SAFETY_OVERDUE_SLACK_MS\` are over | the trip has ended | |

What two inaccurate positions may be wrong by counts for no movement, and no position is further off than its accuracy says.
A position that is known no better than 500 m is none: a trip with nothing else is one whose signal is lost.
Stops and deviations go by the phone's time, silence by the server's.

**The corridor.** A booking may bring its planned \`route\`: then it is \`SAFETY_CORRIDOR_M\` to each side. Otherwise there is the straight
line only, d metres long. A way by road that is at most k times as long (\`SAFETY_DETOUR_FACTOR\`) stays inside the ellipse whose foci
are the two ends and whose long axis is k·d. The furthest that it can get from the line between them is the short half-axis: so the corridor
is d/2·√(k²−1) to each side, and never less than \`SAFETY_CORRIDOR_M\`.

**The expected duration** is the booking's \`durationS\`. Otherwise it is the length of the planned way, or k·d, its first 15 km at
\`SAFETY_SPEED_KMH\`, the rest 2.5 times as fast.

## What follows
The rider is asked (\`safety:check\`), on their own devices and nowhere else. The question is in the SOS Redis before anything is sent, told again every quarter of
\`SAFETY_ANSWER_WITHIN_MS\` and whenever the rider joins the trip. The answer (\`safety:answer\`) is for all that is open. "Not safe", or no
answer in time, is a \`safety.alarm\` in the admin feed, in the same step that ends the question, so that there is exactly one
whoever died. Neither the end of the trip nor that the vehicle moves on ends a question. The same matter is not asked again for
\`SAFETY_ASK_AGAIN_AFTER_MS\`, for as long as it goes on.

## On clean drives
${rides} of the ${tracks} recordings are rides (3 minutes and 500 m from end to end, or more; those that are there twice count once): ${hours.toFixed(1)} hours, by car and bus, in one city. Each is
taken for a trip from its first point to its last. Nobody was in danger, so each question here is one too many.

${table(
  [
    'kind',
    'questions',
    'per 10 h',
    'rides with one',
    'alarms if the rider never answers',
    'if they answer',
    'questions, with the planned way',
  ],
  [
    ...clean.map((one) => [
      `\`${one.kind}\``,
      one.questions,
      per10h(one.questions),
      `${one.rides} of ${rides}`,
      one.alarmsIfSilent,
      one.alarmsIfAnswered,
      one.questionsWithRoute,
    ]),
    [
      'all',
      sum(({ questions }) => questions),
      per10h(sum(({ questions }) => questions)),
      '',
      sum(({ alarmsIfSilent }) => alarmsIfSilent),
      sum(({ alarmsIfAnswered }) => alarmsIfAnswered),
      sum(({ questionsWithRoute }) => questionsWithRoute),
    ],
  ],
)}

What they come from: the phone was really silent for that long (\`signal-lost\`; the recordings have gaps of up to 23 minutes),
and the car really stood there (\`long-stop\`). Rides that deviate drive a loop away from where they end; overdue are the ones
that stood or were silent for long.

## With a fault in each drive
Injected when half of the way is driven (${rides} rides); \`overdue\` counts from when the recording arrives.

${table(
  ['kind', 'fault', 'noticed', 'median, min', '90 %, min', 'longest, min'],
  faults.map((one) => [
    `\`${one.kind}\``,
    one.fault,
    `${one.noticed} of ${rides}`,
    minutes(one.medianMin),
    minutes(one.p90Min),
    minutes(one.longestMin),
  ]),
)}

Where a stop or silence was noticed late, the same question had been asked a few minutes before. A detour on a long ride is noticed late: the straight line's corridor is as wide as the ride is long. Give the booking its planned way.

## With other settings
One changed at a time; defaults are among them.

${table(
  ['kind', 'setting', 'questions per 10 h, clean', 'fault noticed', 'median, min'],
  settings.map((one) => [
    `\`${one.kind}\``,
    `\`${one.setting}\``,
    per10h(one.questions),
    `${one.noticed} of ${rides}`,
    minutes(one.medianMin),
  ]),
)}
`;
}

async function docs(onlyCheck: boolean): Promise<number> {
  const text = await document();
  if (!onlyCheck) writeFileSync(path, text);
  else if (readFileSync(path, 'utf8') !== text) {
    process.stderr.write(`${path} does not say what the checks do: npm run safety -- docs\n`);
    return 1;
  }
  return 0;
}

const [command, option] = process.argv.slice(2);
if (command === 'docs') process.exitCode = await docs(option === '--check');
else {
  process.stderr.write('Usage: npm run safety -- docs [--check]\n');
  process.exitCode = 2;
}
