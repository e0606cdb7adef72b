import { appendFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Journal } from '../../../services/sos/journal.ts';
import { readPress } from '../../../services/sos/read-press.ts';

const press = (key: string) => readPress({ key }, { id: 'usr_1', standing: 'live' }, 1_760_000_000_000);

describe('the journal of presses', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'ride-journal-'));
  });
  afterEach(() => rm(directory, { recursive: true }));

  test('+ what is written after a torn line is not lost with it', async () => {
    // As a process leaves it that is killed while it writes
    await appendFile(join(directory, 'door.jsonl'), '{"t":"press","press":{"alertId":"sos_to');
    const first = await Journal.open(directory, 'door');
    await first.add(press('1'));
    await first.add(press('2'));
    await first.close();
    const second = await Journal.open(directory, 'door');
    expect([...second.waiting.keys()]).toEqual([press('1').alertId, press('2').alertId]);
    await second.close();
  });
});
