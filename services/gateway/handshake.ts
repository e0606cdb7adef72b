import { publicError } from '../../lib/errors.ts';

/** A Socket.IO middleware: what `admit` throws refuses the connection, and the client gets its code as `error.data`. */
export const handshake =
  <S>(admit: (socket: S) => Promise<void>) =>
  (socket: S, next: (refusal?: Error) => void): void => {
    admit(socket).then(
      () => next(),
      (error: unknown) => next(refusalOf(error)),
    );
  };

/** As Socket.IO passes it to the client. */
export function refusalOf(error: unknown): Error {
  const refusal = publicError(error);
  return Object.assign(new Error(refusal.message), { data: refusal });
}
