import type { Config } from '../../lib/config.ts';

/**
 * When something is wrong with a trip. Each matter is triggered by one threshold and cleared by another, which follows
 * from the first: however they are configured, nothing can flap between them.
 */
export interface SafetyRules {
  stop: {
    afterMs: number;
    /** Within so many metres of where it stands a trip has not moved. */
    radiusM: number;
    /** Beyond so many it moves again. */
    clearM: number;
    /** So near to its destination a trip may stand: people get out. */
    arrivedM: number;
  };
  deviation: {
    /** Metres from the planned way that are allowed, and the least from the straight line. */
    corridorM: number;
    /** How much longer than the straight line a way by road may be. */
    detourFactor: number;
    afterMs: number;
    /** So much nearer to the destination is progress: no deviation. */
    progressM: number;
    /** Back within so much of the corridor, or so much nearer than when it began, it is none any more. */
    clearShare: number;
    clearProgressM: number;
    /** Who has not moved so far while outside stands still, which is another matter. */
    movedM: number;
  };
  signal: {
    /** A position that is known no better than this, m, is none: whoever drives could hide a trip behind it. */
    usableM: number;
    lostAfterMs: number;
    /** Back for so long, without a pause of `pauseMs`, it is no longer lost. */
    clearAfterMs: number;
    pauseMs: number;
  };
  overdue: {
    speedMs: number;
    /** What is longer leads out of town, where it goes so many times as fast. */
    townM: number;
    openRoadFactor: number;
    factor: number;
    slackMs: number;
  };
  questions: QuestionRules;
}

export interface QuestionRules {
  answerWithinMs: number;
  /** An open question is told again, in case the first did not arrive. */
  remindEveryMs: number;
  /** No new question about the same matter of a trip for so long after the last. */
  askAgainAfterMs: number;
}

/** What operators set, and what follows from it. */
export function safetyRules(config: Config): SafetyRules {
  return {
    stop: {
      afterMs: config.safetyStopAfterMs,
      radiusM: config.safetyStopRadiusM,
      clearM: 2 * config.safetyStopRadiusM,
      arrivedM: 150,
    },
    deviation: {
      corridorM: config.safetyCorridorM,
      detourFactor: config.safetyDetourFactor,
      afterMs: config.safetyDeviationAfterMs,
      progressM: 100,
      clearShare: 0.8,
      clearProgressM: 300,
      movedM: 150,
    },
    signal: {
      usableM: 500,
      lostAfterMs: config.safetySignalLostAfterMs,
      clearAfterMs: 30_000,
      // A phone that stands still reports each 30 s
      pauseMs: 60_000,
    },
    overdue: {
      speedMs: config.safetySpeedKmh / 3.6,
      townM: 15_000,
      openRoadFactor: 2.5,
      factor: config.safetyOverdueFactor,
      slackMs: config.safetyOverdueSlackMs,
    },
    questions: {
      answerWithinMs: config.safetyAnswerWithinMs,
      remindEveryMs: Math.ceil(config.safetyAnswerWithinMs / 4),
      askAgainAfterMs: config.safetyAskAgainAfterMs,
    },
  };
}

/** How far back the stream has to be read to know where each matter stands, ms. */
export const longestWindowMs = ({ stop, deviation, signal }: SafetyRules): number =>
  Math.max(stop.afterMs, deviation.afterMs, signal.lostAfterMs) + 60_000;
