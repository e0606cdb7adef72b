/** Catalogue, contracts, code and docs say the same of errors. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { type ErrorCode, errorCatalogue } from '../../contracts/errors.ts';
import { type ActionContract, contracts } from '../../contracts/index.ts';

const catalogue = Object.entries(errorCatalogue) as [ErrorCode, { status: number; message: string }][];
const actions = Object.entries(contracts).flatMap(([service, contract]) =>
  Object.entries<ActionContract>(contract.actions).map(([name, action]) => ({ service, name, action })),
);
const filesIn = (folder: string) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && !file.startsWith('admin/dashboard'))
    .map((file) => join(folder, file));
const raisedIn = (files: string[]) =>
  new Set(
    files.flatMap((file) =>
      [...readFileSync(file, 'utf8').matchAll(/new AppError\(\s*'([A-Z_]+)'/g)].map(([, code]) => code ?? ''),
    ),
  );

/** What any action or door may answer: no contract has to name it. */
const general = new Set<string>([
  'VALIDATION',
  'BAD_JSON',
  'PAYLOAD_TOO_LARGE',
  'NOT_FOUND',
  'RATE_LIMITED',
  'UNAUTHENTICATED',
  'FORBIDDEN',
  'SESSION_STORE_UNAVAILABLE',
  'UNAVAILABLE',
  'TIMEOUT',
  'INTERNAL',
] satisfies ErrorCode[]);

describe('the catalogue of errors', () => {
  test('has a fitting status for each code, and words for a person', () => {
    const fitting: [RegExp, number[]][] = [
      [/_NOT_FOUND$|^NOT_FOUND$|^UNKNOWN_/, [404]],
      [/FORBIDDEN$|_NOT_DRIVER$|_NOT_VERIFIED$|REFUSED$/, [403]],
      [/UNAVAILABLE$/, [503]],
      [/LOCKED$|TOO_MANY|TOO_SOON|RATE_LIMITED/, [429]],
      [/WRONG_STATE$|NOT_ACTIVE$/, [409]],
      [/^UNAUTHENTICATED$/, [401]],
      [/TOO_LARGE$/, [413]],
      [/^INTERNAL$/, [500]],
      [/^TIMEOUT$/, [504]],
    ];
    for (const [code, { status, message }] of catalogue) {
      expect(code).toMatch(/^[A-Z][A-Z_]*[A-Z]$/);
      expect([code, status >= 400 && status < 600]).toEqual([code, true]);
      expect([code, message]).toEqual([code, expect.stringMatching(/^[A-Z].{10,120}\.$/)]);
      for (const [names, statuses] of fitting)
        if (names.test(code)) expect([code, statuses]).toEqual([code, expect.arrayContaining([status])]);
    }
    // Only what is our fault, or a part that is away, is a 5xx
    const ours = catalogue.filter(([, { status }]) => status >= 500).map(([code]) => code);
    for (const code of ours) expect(code).toMatch(/UNAVAILABLE$|^TIMEOUT$|^INTERNAL$|_POOL_|_FAILED$/);
  });

  test('has the codes that contracts name, each once, and none that every action may answer anyway', () => {
    for (const { service, name, action } of actions) {
      const { errors = [] } = action;
      const where = `${service}.${name}`;
      expect([where, new Set(errors).size]).toEqual([where, errors.length]);
      for (const code of errors) {
        expect([where, code, Object.hasOwn(errorCatalogue, code)]).toEqual([where, code, true]);
        expect([where, code, general.has(code)]).toEqual([where, code, false]);
      }
    }
  });

  test('is raised by services as their contracts, or those of the actions that call them, name it', () => {
    const named = new Set<string>(actions.flatMap(({ action }) => action.errors ?? []));
    // Of actions without a route, and of sockets, which have no description
    const unnamed = new Set([
      'USER_NOT_FOUND',
      'TEMPLATE_VARIABLE_MISSING',
      'TOO_MANY_ROOMS',
      'UNKNOWN_EVENT',
      'LOCATION_INVALID',
    ]);
    for (const code of raisedIn(filesIn('services')))
      expect([code, named.has(code) || general.has(code) || unnamed.has(code)]).toEqual([code, true]);
  });

  test('is in docs/errors.md as it is in the code, and each code is raised somewhere', () => {
    // Exits with 1 where it is stale or a code is unused
    const run = () =>
      execFileSync(
        process.execPath,
        ['--disable-warning=ExperimentalWarning', 'bin/errors.ts', 'docs', '--check'],
        {
          encoding: 'utf8',
        },
      );
    expect(run()).toBe('');
    const table = readFileSync('docs/errors.md', 'utf8');
    for (const [code, { status, message }] of catalogue)
      expect(table).toContain(`| \`${code}\` | ${status} | ${message} |`);
    expect(table.match(/^\| `/gm)).toHaveLength(catalogue.length);
  });
});
