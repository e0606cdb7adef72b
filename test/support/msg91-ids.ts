import { registrations } from '../../lib/templates/registered.ts';

/** An id for every text that goes by SMS, as production needs them: not those of development. */
export const msg91Ids = registrations()
  .flatMap(({ channel, name }) => (channel === 'sms' ? [`${name}:${'b'.repeat(24)}`] : []))
  .join(',');
