/** Where alerts live in the SOS Redis: one primary or Sentinel, never a Cluster, so a script may name keys by itself. */
export const sosKeys = {
  /** Hash of one alert; see scripts.ts for its fields. */
  alert: (alertId: string) => `sos:alert:${alertId}`,
  /** List of JSON `{at, what, who?, note?}`: the audit trail, oldest first. */
  log: (alertId: string) => `sos:log:${alertId}`,
  /** The alert that a press with this id has joined. */
  alias: (alertId: string) => `sos:alias:${alertId}`,
  /** The open alert of a user on a trip; drills apart, so that they never swallow a real one. */
  openOf: (userId: string, tripId: string | null, drill: boolean) =>
    `sos:open:${userId}:${tripId ?? '-'}:${drill ? 'drill' : 'real'}`,
  /** Sorted set: what a user has raised in the last six hours, by when it was accepted, ms. */
  recentOf: (userId: string, drill: boolean) => `sos:recent:${userId}:${drill ? 'drill' : 'real'}`,
  /** Sorted set: alerts with something to queue, by since when, ms. */
  unprocessed: 'sos:unprocessed',
  /** Sorted sets: open alerts, and all that are still here, by when they were accepted, ms. */
  open: 'sos:open-alerts',
  all: 'sos:alerts',
  /** Sorted set: alerts that the database has not in their newest form, by since when, ms. */
  unprojected: 'sos:unprojected',
  /** List of JSON: messages that reached nobody after every attempt. */
  dead: 'sos:dead-letters',
  /** How many incidents were opened in a minute, and whether the person on call is being called. */
  pages: (minute: number) => `sos:pages:${minute}`,
  calling: 'sos:calling',
} as const;
