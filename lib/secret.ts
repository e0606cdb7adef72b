import { inspect } from 'node:util';

/** The mounted file that a secret comes from. */
export interface SecretFile<T> {
  path: string;
  /** What the file held. */
  text: string;
  /** The value in a text, or what is wrong with it, told without the text itself. `before` is the value that holds. */
  read(text: string, before: T): { value: T } | { problem: string };
}

/**
 * A secret whose value may change while the process runs. Ask `current()` each time: whoever keeps the value goes on
 * with an old one. It shows itself to no log, no JSON and no text.
 */
export class Secret<T> {
  #value: T;
  readonly #file: SecretFile<T> | undefined;

  constructor(value: T, file?: SecretFile<T>) {
    this.#value = value;
    this.#file = file && { ...file };
  }

  /** The value that holds at this moment. */
  current(): T {
    return this.#value;
  }

  /** The path of its file; none when it came from the environment, and stays. */
  get file(): string | undefined {
    return this.#file?.path;
  }

  /** Takes the value in a newer text of its file when it is usable; else keeps the one it has, and answers what is wrong. */
  offer(text: string): 'taken' | 'same' | { problem: string } {
    const file = this.#file;
    if (!file || text === file.text) return 'same';
    const read = file.read(text, this.#value);
    if ('problem' in read) return read;
    file.text = text;
    this.#value = read.value;
    return 'taken';
  }

  toString(): string {
    return '[secret]';
  }
  toJSON(): string {
    return '[secret]';
  }
  [inspect.custom](): string {
    return '[secret]';
  }
}

/** The value that holds now, of a secret or of a plain value that never changes. */
export const currentOf = <T>(secret: Secret<T> | T): T =>
  secret instanceof Secret ? secret.current() : secret;
