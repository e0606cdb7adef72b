import { open } from 'node:fs/promises';
import { Secret } from './secret.ts';

/** What is larger is no secret, bytes. */
const maxBytes = 64 * 1024;

export interface SecretFilesOptions {
  /** How often the files are read, ms. */
  intervalMs: number;
  onTaken(key: string): void;
  /** The old value goes on. `problem` tells nothing of what the file holds. */
  onRefused(key: string, problem: string): void;
}

/** A file as last seen. `null`: it could not be read. */
interface Seen {
  text: string | null;
  /** The text that was last offered. */
  offered: string | null | undefined;
}

async function readSmall(path: string): Promise<string> {
  const file = await open(path);
  try {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(maxBytes + 1), 0, maxBytes + 1, 0);
    if (bytesRead > maxBytes) throw new RangeError('Too large for a secret');
    return buffer.toString('utf8', 0, bytesRead).trim();
  } finally {
    await file.close();
  }
}

/**
 * Reads the files of those values of `secrets` that are a Secret again and again, and offers what changed. By content and
 * not by file events: Kubernetes swaps a symlink further up, which nobody sees who watches the file. A text counts once it
 * was read twice alike, so that a file which is being written is never half of a secret. Answers how to stop.
 */
export function watchSecretFiles(secrets: Readonly<object>, options: SecretFilesOptions): () => void {
  const watched = Object.entries(secrets).flatMap(([key, secret]: [string, unknown]) =>
    secret instanceof Secret && secret.file !== undefined ? [{ key, secret, path: secret.file }] : [],
  );
  if (watched.length === 0) return () => undefined;
  const seen = new Map<string, Seen>();

  const look = async ({ key, secret, path }: (typeof watched)[number]): Promise<void> => {
    const text = await readSmall(path).catch(() => null);
    const before = seen.get(key);
    let offered = before?.offered;
    if (before?.text === text && offered !== text) {
      offered = text;
      const outcome = text === null ? { problem: 'the file cannot be read' } : secret.offer(text);
      if (outcome === 'taken') options.onTaken(key);
      else if (outcome !== 'same') options.onRefused(key, outcome.problem);
    }
    seen.set(key, { text, offered });
  };

  let looking = false;
  const timer = setInterval(() => {
    if (looking) return;
    looking = true;
    void Promise.all(watched.map(look)).finally(() => {
      looking = false;
    });
  }, options.intervalMs);
  timer.unref();
  return () => clearInterval(timer);
}
