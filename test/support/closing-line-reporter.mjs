/** Ends a run with the counts alone on a line, for programs that read the output, and ends a run that hangs. */
export default class ClosingLineReporter {
  #watching;

  constructor({ watch, watchAll }) {
    this.#watching = watch || watchAll;
  }

  onRunComplete(_contexts, results) {
    if (this.#watching) return;
    // A file that could not even start, or left something open, counts as one failure
    const failed = results.numFailedTests + results.numRuntimeErrorTestSuites;
    const skipped = results.numPendingTests + results.numTodoTests;
    // Jest's own summary comes after this reporter's turn
    process.once('exit', () => {
      process.stdout.write(`\n${results.numPassedTests} passed, ${failed} failed, ${skipped} skipped\n`);
    });
    // Jest waits for ever on what a test left open in its own process; TidyEnvironment has named it by now
    setTimeout(() => {
      process.stderr.write(
        `Still open 5 s after the last test: ${process.getActiveResourcesInfo().join(', ')}\n`,
      );
      process.exit(1);
    }, 5000).unref();
  }
}
