import { describe, expect, test } from '@jest/globals';
import { parseOptions } from '../../support/simulate/options.ts';

describe('the options of the simulator', () => {
  test('have defaults', () => {
    expect(parseOptions([])).toEqual({
      trips: 20,
      speedup: 10,
      watchers: 1,
      url: 'http://127.0.0.1:3000',
      socketUrl: 'http://127.0.0.1:3001',
      batchWindowMs: 1200,
      json: false,
      help: false,
    });
  });

  test('are read', () => {
    const args = ['--trips', '200', '--speedup', '0.5', '--url', 'https://api.example/', '--json'];
    expect(parseOptions(args)).toMatchObject({
      trips: 200,
      speedup: 0.5,
      url: 'https://api.example',
      json: true,
    });
  });

  test.each([
    [['--trips', '0'], '--trips must be a number from 1 to 5000, not "0"'],
    [['--trips', '2.5'], '--trips must be a whole number, not "2.5"'],
    [['--trips', ''], '--trips must be a number from 1 to 5000, not ""'],
    [['--speedup', 'fast'], '--speedup must be a number from 0.1 to 200, not "fast"'],
    [['--url', 'localhost:3000'], '--url must be an http or https URL, not "localhost:3000"'],
    [['--socket-url', 'nowhere'], '--socket-url must be an http or https URL, not "nowhere"'],
    [['--fast'], "Unknown option '--fast'"],
  ])('%j is refused with the reason', (args, message) => {
    expect(() => parseOptions(args)).toThrow(message);
  });
});
