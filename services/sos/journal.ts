/**
 * Where presses wait, on this machine's disk, while the SOS Redis is silent: a file of JSON lines, each fsynced before it
 * counts. A process has one file; what a dead one left is taken over by lock.
 */
import { type FileHandle, mkdir, open, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCode } from '../../lib/error-code.ts';
import { GroupCommit } from '../../lib/group-commit.ts';
import { takeProcessLock } from '../../lib/process-lock.ts';
import type { MessageState } from './alert-record.ts';
import type { Press } from './read-press.ts';

/** A press that the SOS Redis has not got yet, and the messages that were sent for it from here, by contact. */
export interface Waiting {
  press: Press;
  sent: Map<string, MessageState>;
}

type Line =
  | { t: 'press'; press: Press }
  | { t: 'message'; id: string; contact: string; state: MessageState }
  | { t: 'done'; id: string };

const suffix = '.jsonl';

/** The last line of a killed process may be torn: it was answered to nobody. */
function parseLines(text: string): Line[] {
  return text.split('\n').flatMap((line) => {
    try {
      return line === '' ? [] : [JSON.parse(line) as Line];
    } catch {
      return [];
    }
  });
}

function apply(waiting: Map<string, Waiting>, line: Line): void {
  if (line.t === 'press') {
    if (!waiting.has(line.press.alertId))
      waiting.set(line.press.alertId, { press: line.press, sent: new Map() });
  } else if (line.t === 'message') waiting.get(line.id)?.sent.set(line.contact, line.state);
  else waiting.delete(line.id);
}

export class Journal {
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #waiting = new Map<string, Waiting>();
  readonly #release: () => Promise<void>;
  readonly #lines: GroupCommit<Line, true>;
  /** The file may end within a line: what comes next must not become a part of it. */
  #torn = true;

  private constructor(file: FileHandle, path: string, release: () => Promise<void>) {
    this.#file = file;
    this.#path = path;
    this.#release = release;
    this.#lines = new GroupCommit<Line, true>({
      maxSize: 1000,
      maxUnderWay: 1,
      commit: async (lines) => {
        const text = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
        const begin = this.#torn ? '\n' : '';
        this.#torn = true;
        await this.#file.appendFile(begin + text);
        this.#torn = false;
        await this.#file.datasync();
        for (const line of lines) apply(this.#waiting, line);
        // In here nothing else is being written
        if (this.#waiting.size === 0) await this.#file.truncate(0);
        return lines.map(() => true as const);
      },
    });
  }

  /**
   * Opens this process's journal in a directory of this machine's own, with what dead processes have left there. Rejects
   * when the directory cannot be written.
   */
  static async open(directory: string, name: string): Promise<Journal> {
    await mkdir(directory, { recursive: true });
    const path = join(directory, `${name}${suffix}`);
    const release = await takeProcessLock(`${path}.lock`);
    try {
      const journal = new Journal(await open(path, 'a', 0o600), path, release);
      // A new file is there after a power cut only if its directory says so
      const folder = await open(directory, 'r');
      try {
        await folder.sync();
      } finally {
        await folder.close();
      }
      await journal.#takeOver(directory);
      return journal;
    } catch (error) {
      await release();
      throw error;
    }
  }

  /** What waits for the SOS Redis, oldest first. */
  get waiting(): ReadonlyMap<string, Waiting> {
    return this.#waiting;
  }

  /** Resolves when the press is on the disk. */
  async add(press: Press): Promise<void> {
    await this.#lines.add({ t: 'press', press });
  }

  /** Notes a message before and after it is sent. */
  async noteMessage(id: string, contact: string, state: MessageState): Promise<void> {
    await this.#lines.add({ t: 'message', id, contact, state });
  }

  /** The SOS Redis has it. */
  async done(id: string): Promise<void> {
    await this.#lines.add({ t: 'done', id });
  }

  /** Leaves what waits for the next process. */
  async close(): Promise<void> {
    await this.#file.close();
    if (this.#waiting.size === 0) await rm(this.#path, { force: true });
    await this.#release();
  }

  async #takeOver(directory: string): Promise<void> {
    const own = await readFile(this.#path, 'utf8');
    for (const line of parseLines(own)) apply(this.#waiting, line);
    for (const name of await readdir(directory)) {
      const path = join(directory, name);
      if (!name.endsWith(suffix) || path === this.#path) continue;
      const release = await takeProcessLock(`${path}.lock`).catch(() => null);
      // Its owner lives
      if (release === null) continue;
      try {
        await this.#copyFrom(path);
        await rm(path, { force: true });
      } finally {
        await release();
      }
    }
  }

  /** First here, then away there: a crash in between only means twice. */
  async #copyFrom(path: string): Promise<void> {
    const left = new Map<string, Waiting>();
    const text = await readFile(path, 'utf8').catch((error: unknown) => {
      if (errorCode(error) === 'ENOENT') return '';
      throw error;
    });
    for (const line of parseLines(text)) apply(left, line);
    for (const [id, { press, sent }] of left) {
      await this.#lines.add({ t: 'press', press });
      for (const [contact, state] of sent) await this.#lines.add({ t: 'message', id, contact, state });
    }
  }
}
