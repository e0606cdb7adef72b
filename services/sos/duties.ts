import { type AlertRecord, endIsTold } from './alert-record.ts';
import { isOver } from './alert-state.ts';

/** What an alert needs done, as it is now. Doing it twice changes nothing, so this may be asked at any time. */
export interface Duties {
  /** Its contacts are to be told, and its 30 s begin: true until that is queued. */
  plan: boolean;
  /** Contacts (by key) who were told of it and have to hear that it is over. */
  tellOver: string[];
  /** Somebody has to be woken at once. */
  wake: boolean;
  /** What the incident has to follow. */
  pager: 'acknowledge' | 'resolve' | null;
}

/** A drill reaches nobody outside. */
export function dutiesOf(record: AlertRecord): Duties {
  const over = isOver(record.status);
  const told = new Set(
    record.messages.flatMap(({ purpose, contact, state }) =>
      purpose === 'raised' && (state.status === 'sent' || state.status === 'sending' || state.unsure)
        ? [contact]
        : [],
    ),
  );
  for (const { purpose, contact } of record.messages) if (purpose === 'over') told.delete(contact);
  return {
    plan: !record.planned,
    tellOver: endIsTold(record) ? [...told] : [],
    wake: record.duressAt !== null && !over && !record.press.drill && !record.paged,
    pager: !record.paged || record.status === 'active' ? null : over ? 'resolve' : 'acknowledge',
  };
}
