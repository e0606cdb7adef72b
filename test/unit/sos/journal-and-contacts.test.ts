import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Intake, type IntakeParts } from '../../../services/sos/intake.ts';
import { Journal, type Waiting } from '../../../services/sos/journal.ts';
import { type Press, readPress } from '../../../services/sos/read-press.ts';
import type { SentState, SosRecords, Taken } from '../../../services/sos/records.ts';
import { eventually } from '../../support/eventually.ts';

const logger = { debug() {}, info() {}, warn() {}, error() {} };

/** An SOS Redis that is away until it is told to be there. */
class Records {
  isAway = true;
  readonly taken: { alertId: string; sent: readonly SentState[] }[] = [];
  refuseWaiting(): void {}
  async clear(): Promise<void> {}
  async ping(): Promise<void> {
    if (this.isAway) throw new Error('away');
  }
  async take({ alertId, acceptedAt }: Press, sent: readonly SentState[] = []): Promise<Taken> {
    await this.ping();
    this.taken.push({ alertId, sent });
    return { alertId, acceptedAt, status: 'active', how: 'new', planned: false, replicated: true };
  }
}

describe('presses while the SOS Redis is away', () => {
  let directory: string;
  let journal: Journal;
  let intake: Intake;
  let records: Records;
  let now: number;
  let tell: IntakeParts['tellContacts'];
  const told: Waiting[] = [];

  const open = async () => {
    journal = await Journal.open(directory, 'door');
    intake = new Intake({
      records: records as unknown as SosRecords,
      journal,
      lastKnown: async () => null,
      queue: async () => {},
      copy: async () => {},
      onQueued() {},
      onDrained() {},
      tellContacts(waiting, ...rest) {
        told.push(waiting);
        return tell(waiting, ...rest);
      },
      count() {},
      logger,
      now: () => now,
    });
    intake.start();
  };
  const close = async () => {
    await intake.stop();
    await journal.close();
  };
  const press = (key: string, tripId: string | null = null) =>
    intake.take(readPress({ key, tripId }, { id: 'usr_1', standing: 'live' }, now));

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'ride-intake-'));
    records = new Records();
    now = 1_760_000_000_000;
    told.length = 0;
    tell = async () => true;
    await open();
  });
  afterEach(async () => {
    await close();
    await rm(directory, { recursive: true });
  });

  test('+ contacts hear once of one who presses again and again', async () => {
    const first = await press('1');
    await press('2');
    await press('3', 'trp_other');
    now += 11_000;
    await eventually(() => expect(told).toHaveLength(2));
    expect(told.map(({ press: { alertId, tripId } }) => [alertId, tripId])).toEqual([
      [first.alertId, null],
      [expect.any(String), 'trp_other'],
    ]);
    records.isAway = false;
    await eventually(() => expect(journal.waiting.size).toBe(0));
    expect(told).toHaveLength(2);
  });

  test('R3.6 who could not be told is tried again', async () => {
    let tries = 0;
    tell = async () => ++tries === 3;
    await press('1');
    now += 11_000;
    await eventually(() => expect(tries).toBe(1));
    // Each wait is longer than the one before
    now += 60_000;
    await eventually(() => expect(tries).toBe(2));
    now += 60_000;
    await eventually(() => expect(tries).toBe(3));
  });

  test('+ when it is back the door stops texting, hands over what it sent, and lets the workers do the rest', async () => {
    const state = { name: 'Friend', channel: 'sms', provider: 'twilio', tries: [], at: now };
    tell = async (_waiting, note, signal) => {
      await note('told', { ...state, status: 'sent' });
      await note('unreached', { ...state, status: 'failed' });
      await new Promise<void>((resolve) => {
        signal.addEventListener('abort', () => resolve());
      });
      return false;
    };
    const { alertId } = await press('1');
    now += 11_000;
    await eventually(() => expect(journal.waiting.get(alertId)?.sent.size).toBe(2));
    records.isAway = false;
    await eventually(() => expect(journal.waiting.size).toBe(0));
    expect(records.taken).toEqual([
      { alertId, sent: [{ contact: 'told', state: { ...state, status: 'sent' } }] },
    ]);
  });

  test('+ a door that starts with presses in its journal can show them, and takes new ones behind them', async () => {
    const { alertId } = await press('1');
    await close();
    await open();
    expect(intake.silent).toBe(true);
    expect(intake.waiting(alertId)?.press.alertId).toBe(alertId);
    const second = await press('2');
    records.isAway = false;
    await eventually(() => expect(intake.silent).toBe(false));
    expect(records.taken.map((one) => one.alertId)).toEqual([alertId, second.alertId]);
  });
});
