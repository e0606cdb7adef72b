export default {
  testMatch: ['<rootDir>/test/{unit,property,integration,e2e}/**/*.test.ts'],
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '\\.ts$': '<rootDir>/test/support/strip-types.mjs' },
  testSequencer: '<rootDir>/test/support/long-first-sequencer.mjs',
  testEnvironment: '<rootDir>/test/support/tidy-environment.mjs',
  reporters: ['default', '<rootDir>/test/support/closing-line-reporter.mjs'],
  // What a development run keeps, and other checkouts inside this one, hold no modules
  modulePathIgnorePatterns: ['<rootDir>/data/', '<rootDir>/\\.', '<rootDir>/worktrees/'],
  watchPathIgnorePatterns: ['<rootDir>/data/'],
  // On two cores: tests that start systems mostly wait (of 200 s, the cores had work for 140)
  maxWorkers: 4,
  // Starting a broker with Redis takes a second or two on a busy machine; a test that needs longer says so itself
  testTimeout: 15_000,
};
