import type { AlertStatus } from '../../contracts/sos.ts';

export type AlertStep = 'acknowledge' | 'respond' | 'resolve' | 'false-alarm' | 'cancel';

/** Forward only; skipping is allowed: any open state can be resolved. */
const steps: Record<AlertStep, { from: readonly AlertStatus[]; to: AlertStatus }> = {
  acknowledge: { from: ['active'], to: 'acknowledged' },
  respond: { from: ['active', 'acknowledged'], to: 'responding' },
  resolve: { from: ['active', 'acknowledged', 'responding'], to: 'resolved' },
  'false-alarm': { from: ['active', 'acknowledged', 'responding'], to: 'false-alarm' },
  cancel: { from: ['active', 'acknowledged', 'responding'], to: 'cancelled' },
};

/** The states that a step may start from. */
export const allowedFrom = (step: AlertStep): readonly AlertStatus[] => steps[step].from;

/** Where a step leads. */
export const outcomeOf = (step: AlertStep): AlertStatus => steps[step].to;

/** The state after a step, or null when the step is not allowed now. */
export const nextStatus = (status: AlertStatus, step: AlertStep): AlertStatus | null =>
  steps[step].from.includes(status) ? steps[step].to : null;

export const isOver = (status: AlertStatus): boolean =>
  status === 'resolved' || status === 'false-alarm' || status === 'cancelled';
