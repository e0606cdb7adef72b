/** test/types is worth something only while tsc reads it and each of its expectations holds. */
import { readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { beforeAll, expect, test } from '@jest/globals';
import ts from 'typescript';

const fixtures = readdirSync('test/types').map((name) => resolve('test/types', name));
const expectation = /^ *\/\/ @ts-expect-error/;
const read = (path: string) => ts.sys.readFile(path) ?? '';

const { config } = ts.readConfigFile('tsconfig.json', read) as { config: unknown };
const project = ts.parseJsonConfigFileContent(config, ts.sys, '.');

/** The fixtures as they are, and beside each what a test makes of it: one program, since each checks the contracts anew. */
const readings = {
  asItIs: (text: string) => text,
  withoutExpectations: (text: string) => text.replaceAll('@ts-expect-error', 'so far expected'),
  withOneTooMany: (text: string) =>
    `${text}\n// @ts-expect-error Nothing is wrong with it\nexport const fine: number = 1;\n`,
};
type Reading = keyof typeof readings;
const pathOf = (fixture: string, reading: Reading) =>
  reading === 'asItIs' ? fixture : fixture.replace('.test-d.ts', `.${reading}.test-d.ts`);
const texts = new Map(
  fixtures.flatMap((fixture) =>
    Object.entries(readings).map(([reading, change]) => [
      pathOf(fixture, reading as Reading),
      change(read(fixture)),
    ]),
  ),
);

let program: ts.Program;
beforeAll(() => {
  const host = ts.createCompilerHost(project.options);
  const onDisk = host.getSourceFile.bind(host);
  host.getSourceFile = (name, options, ...rest) => {
    const text = texts.get(resolve(name));
    return text === undefined ? onDisk(name, options, ...rest) : ts.createSourceFile(name, text, options);
  };
  program = ts.createProgram([...texts.keys()], project.options, host);
}, 60_000);

/** What tsc says about the fixtures, read like this: `file:line` and the error's code. */
const complaints = (reading: Reading) =>
  fixtures.flatMap((fixture) => {
    const source = program.getSourceFile(pathOf(fixture, reading));
    if (!source) throw new Error(`tsc has not read ${fixture}`);
    return [...program.getSemanticDiagnostics(source), ...program.getSyntacticDiagnostics(source)].map(
      ({ start = 0, code }) => ({
        at: `${fixture}:${source.getLineAndCharacterOfPosition(start).line + 1}`,
        code,
      }),
    );
  });
/** Lines with an expectation, and the lines that they are about, as `file:line`. */
const expected = fixtures.flatMap((path) =>
  read(path)
    .split('\n')
    .flatMap((line, index) => (expectation.test(line) ? [{ path, line: index + 1 }] : [])),
);

test('tsc reads the fixtures with the rest, and has nothing to say', () => {
  expect(project.fileNames.map((name) => resolve(name))).toEqual(expect.arrayContaining(fixtures));
  expect(expected.length).toBeGreaterThan(45);
  expect(complaints('asItIs')).toEqual([]);
}, 60_000);

test('without its expectation each wrong use is an error', () => {
  const wrong = new Set(complaints('withoutExpectations').map(({ at }) => at));
  // The line after; a call over several lines is marked at the part that is wrong
  const silent = expected.filter(({ path, line }) => !wrong.has(`${path}:${line + 1}`));
  expect(silent).toEqual([]);
}, 60_000);

test('an expectation of something that is right fails', () => {
  // 2578: unused directive
  expect(complaints('withOneTooMany').map(({ code }) => code)).toEqual(fixtures.map(() => 2578));
}, 60_000);

test('what stands for the apps imports contracts and nothing else', () => {
  const imports = [...read('test/types/consumer.test-d.ts').matchAll(/from '([^']+)'/g)].map(
    ([, from]) => from,
  );
  expect(imports.length).toBeGreaterThan(3);
  for (const from of imports) expect(from).toMatch(/^\.\.\/\.\.\/contracts\/[\w-]+\.ts$/);
});
