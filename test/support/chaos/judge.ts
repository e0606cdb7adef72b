/** What became of acknowledged alerts, as the raiser, the admins and the contacts see it. */

import { feedKeys } from '../../../lib/feed-stream.ts';
import { parseAlert } from '../../../services/sos/alert-record.ts';
import { sosKeys } from '../../../services/sos/sos-keys.ts';
import { eventually } from '../eventually.ts';
import { type Alert, messagesTo } from './people.ts';
import { type World, workers } from './world.ts';

/** What is not done after this time never will be, ms. */
const lostAfterMs = 45_000;

async function recordOf(world: World, { alertId }: Alert) {
  const redis = await world.reader();
  const id = (await redis.get(sosKeys.alias(alertId))) ?? alertId;
  return parseAlert(id, await redis.hgetall(sosKeys.alert(id)));
}

/**
 * When the record said of the last contact of the last alert that it has been told, ms; throws with what is missing when that
 * takes too long.
 */
export async function doneAt(world: World, alerts: readonly Alert[]): Promise<number> {
  let last = 0;
  for (const alert of alerts) {
    await eventually(async () => {
      const record = await recordOf(world, alert);
      const states = record?.messages.map(({ state }) => state.status) ?? [];
      const told = alert.person.contacts.map((contact) => messagesTo(world, contact, alert.mark));
      const isDone = states.length === told.length && states.every((status) => status === 'sent');
      if (!isDone || told.some((messages) => messages.length === 0))
        throw new Error(
          `${alert.alertId}: ${record ? `its messages are ${states.join(', ') || 'not planned'}` : 'no record'}, contacts got ${told.map((messages) => messages.length).join(', ')}`,
        );
      last = Math.max(last, ...(record?.messages.map(({ state }) => state.at) ?? []));
    }, lostAfterMs);
  }
  return last;
}

/** When every contact had been texted, whoever did it, ms; the record may be out of reach. */
export async function toldAt(world: World, alerts: readonly Alert[]): Promise<number> {
  let last = 0;
  for (const { person, mark, alertId } of alerts)
    for (const contact of person.contacts) {
      const [first] = await eventually(() => {
        const messages = messagesTo(world, contact, mark);
        if (messages.length === 0) throw new Error(`${alertId}: a contact got nothing`);
        return messages;
      }, lostAfterMs);
      last = Math.max(last, first ?? 0);
    }
  return last;
}

/** What is wrong with these alerts, when all has settled. */
export interface Verdict {
  /** Not in the SOS Redis, not in the feed, or a contact without a message. */
  lost: number;
  /** Twice in the feed, or messages that a contact got more than once. */
  doubled: number;
  problems: string[];
}

export async function judge(world: World, alerts: readonly Alert[]): Promise<Verdict> {
  const redis = await world.reader();
  const entries = await redis.xrange(feedKeys.stream, '-', '+');
  const triggered = new Map<string, number>();
  for (const [, fields] of entries) {
    if (!fields.includes('sos.triggered')) continue;
    const data = JSON.parse(fields[fields.indexOf('data') + 1] ?? '{}') as { alertId: string };
    triggered.set(data.alertId, (triggered.get(data.alertId) ?? 0) + 1);
  }
  const verdict: Verdict = { lost: 0, doubled: 0, problems: [] };
  for (const alert of alerts) {
    const record = await recordOf(world, alert);
    const inFeed = triggered.get(record?.alertId ?? '') ?? 0;
    const messages = alert.person.contacts.map((contact) => messagesTo(world, contact, alert.mark).length);
    const tooMany = messages.reduce((sum, count) => sum + Math.max(0, count - 1), 0);
    if (!record || inFeed === 0 || messages.includes(0)) verdict.lost++;
    verdict.doubled += tooMany + Math.max(0, inFeed - 1);
    if (!record || inFeed !== 1 || messages.some((count) => count !== 1))
      verdict.problems.push(
        `${alert.alertId}: ${record ? record.status : 'no record'}, ${inFeed} times in the feed, contacts got ${messages.join(', ')}`,
      );
  }
  return verdict;
}

/** Messages that a worker knows it has sent again: of what it cannot know whether they were sent. */
export async function resentBy(world: World): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for (const name of workers) {
    const { metricsUrl, child } = world.role(name);
    const text = await fetch(`${metricsUrl}/metrics`).then(
      (answer) => answer.text(),
      () => '',
    );
    const [, count = '0'] = /^\S*sos_resent_total\S* (\d+)/m.exec(text) ?? [];
    counts.set(`${name} ${child.pid}`, Number(count));
  }
  return counts;
}
