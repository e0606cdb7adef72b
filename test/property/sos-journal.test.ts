import { appendFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { takeProcessLock } from '../../lib/process-lock.ts';
import { Journal } from '../../services/sos/journal.ts';
import { readPress } from '../../services/sos/read-press.ts';
import { state } from '../unit/sos/records.ts';

const press = (key: string) => readPress({ key }, { id: 'usr_1', standing: 'live' }, 1);
const keysOf = (journal: Journal) => [...journal.waiting.keys()];
const idOf = (key: string) => press(key).alertId;

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'ride-journal-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

/** What the next process would find: the file as it is now, owned by nobody. */
async function afterCrash(name = 'a'): Promise<{ keys: string[]; sent: Record<string, string[]> }> {
  const copy = await mkdtemp(join(tmpdir(), 'ride-crash-'));
  await writeFile(join(copy, 'dead.jsonl'), await readFile(join(directory, `${name}.jsonl`)));
  const next = await Journal.open(copy, 'next');
  const found = {
    keys: keysOf(next),
    sent: Object.fromEntries([...next.waiting].map(([id, { sent }]) => [id, [...sent.keys()]])),
  };
  await next.close();
  await rm(copy, { recursive: true });
  return found;
}

describe('the journal of presses', () => {
  test('+ whatever is added, sent and done at once, what was answered and is not done survives a crash', async () => {
    const key = fc.constantFrom('a', 'b', 'c', 'd');
    const step = fc.record({ what: fc.constantFrom('add', 'add', 'done', 'sent', 'turn'), key });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        const journal = await Journal.open(directory, 'a');
        const model = new Map<string, Set<string>>();
        const writing: Promise<void>[] = [];
        for (const { what, key: each } of steps) {
          const id = idOf(each);
          // The journal writes in the order in which it is asked
          if (what === 'add') {
            if (!model.has(id)) model.set(id, new Set());
            writing.push(journal.add(press(each)));
          } else if (what === 'done') {
            model.delete(id);
            writing.push(journal.done(id));
          } else if (what === 'sent') {
            model.get(id)?.add('c1');
            writing.push(journal.noteMessage(id, 'c1', state()));
          } else await new Promise((resolve) => setImmediate(resolve));
        }
        await Promise.all(writing);
        const { keys, sent } = await afterCrash();
        expect(new Set(keys)).toEqual(new Set(model.keys()));
        for (const [id, contacts] of model) expect(sent[id]).toEqual([...contacts]);
        expect(new Set(keysOf(journal))).toEqual(new Set(model.keys()));
        if (model.size === 0) expect((await readFile(join(directory, 'a.jsonl'))).length).toBe(0);
        for (const id of model.keys()) await journal.done(id);
        await journal.close();
        expect(await readdir(directory)).toEqual([]);
      }),
      { numRuns: 40 },
    );
  });

  test('+ an answer means that it is on the disk', async () => {
    const journal = await Journal.open(directory, 'a');
    await journal.add(press('a'));
    expect(await readFile(join(directory, 'a.jsonl'), 'utf8')).toContain(idOf('a'));
    await journal.close();
    // What waits is left for the next
    expect(await readdir(directory)).toEqual(['a.jsonl']);
  });

  test('+ a line that a killed process left torn is skipped, and what comes after it is not', async () => {
    const first = await Journal.open(directory, 'a');
    await first.add(press('a'));
    await first.close();
    await appendFile(join(directory, 'a.jsonl'), '{"t":"press","press":{"alertId":"sos_torn');
    const second = await Journal.open(directory, 'a');
    expect(keysOf(second)).toEqual([idOf('a')]);
    await second.add(press('b'));
    await second.close();
    const third = await Journal.open(directory, 'a');
    expect(keysOf(third)).toEqual([idOf('a'), idOf('b')]);
    await third.close();
  });

  test("+ a dead process's file is taken over, a living one's is not", async () => {
    const living = await Journal.open(directory, 'living');
    await living.add(press('l'));
    const dead = await Journal.open(directory, 'dead');
    await dead.add(press('d'));
    await dead.noteMessage(idOf('d'), 'c1', state({ status: 'sent' }));
    await dead.close();
    // As after a kill: the lock names a process that is gone
    await writeFile(join(directory, 'dead.jsonl.lock'), '4194304 1\n');
    const next = await Journal.open(directory, 'next');
    expect(keysOf(next)).toEqual([idOf('d')]);
    expect(next.waiting.get(idOf('d'))?.sent.get('c1')).toMatchObject({ status: 'sent' });
    expect((await readdir(directory)).toSorted()).toEqual([
      'living.jsonl',
      'living.jsonl.lock',
      'next.jsonl',
      'next.jsonl.lock',
    ]);
    expect(keysOf(living)).toEqual([idOf('l')]);
    await living.add(press('m'));
    await Promise.all([living.close(), next.close()]);
    await expect(
      takeProcessLock(join(directory, 'next.jsonl.lock')).then((release) => release()),
    ).resolves.toBeUndefined();
  });

  test('a directory that cannot be written is an error at once', async () => {
    await writeFile(join(directory, 'file'), '');
    await expect(Journal.open(join(directory, 'file'), 'a')).rejects.toThrow();
  });
});
