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

/** What tsc says about the fixtures when they hold `change`d text: `file:line` and the error's code. */
function complaints(change: (text: string) => string, older?: ts.Program) {
  const host = ts.createCompilerHost(project.options);
  const plain = host.getSourceFile.bind(host);
  host.getSourceFile = (name, options, ...rest) =>
    fixtures.includes(resolve(name))
      ? ts.createSourceFile(name, change(read(name)), options)
      : (older?.getSourceFile(name) ?? plain(name, options, ...rest));
  const program = ts.createProgram(fixtures, project.options, host);
  const found = fixtures.flatMap((path) => {
    const source = program.getSourceFile(path);
    return [...program.getSemanticDiagnostics(source), ...program.getSyntacticDiagnostics(source)].map(
      ({ start = 0, code }) => ({
        at: `${path}:${(source?.getLineAndCharacterOfPosition(start).line ?? 0) + 1}`,
        code,
      }),
    );
  });
  return { program, found };
}
/** Lines with an expectation, and the lines that they are about, as `file:line`. */
const expected = fixtures.flatMap((path) =>
  read(path)
    .split('\n')
    .flatMap((line, index) => (expectation.test(line) ? [{ path, line: index + 1 }] : [])),
);

let asTheyAre: ReturnType<typeof complaints>;
beforeAll(() => {
  asTheyAre = complaints((text) => text);
}, 60_000);

test('tsc reads the fixtures with the rest, and has nothing to say', () => {
  expect(project.fileNames.map((name) => resolve(name))).toEqual(expect.arrayContaining(fixtures));
  expect(expected.length).toBeGreaterThan(45);
  expect(asTheyAre.found).toEqual([]);
}, 60_000);

test('without its expectation each wrong use is an error', () => {
  const { found } = complaints(
    (text) => text.replaceAll('@ts-expect-error', 'so far expected'),
    asTheyAre.program,
  );
  const wrong = new Set(found.map(({ at }) => at));
  // The line after; a call over several lines is marked at the part that is wrong
  const silent = expected.filter(({ path, line }) => !wrong.has(`${path}:${line + 1}`));
  expect(silent).toEqual([]);
}, 60_000);

test('an expectation of something that is right fails', () => {
  const right = '\n// @ts-expect-error Nothing is wrong with it\nexport const fine: number = 1;\n';
  const { found } = complaints((text) => text + right, asTheyAre.program);
  // 2578: unused directive
  expect(found.map(({ code }) => code)).toEqual(fixtures.map(() => 2578));
}, 60_000);

test('what stands for the apps imports contracts and nothing else', () => {
  const imports = [...read('test/types/consumer.test-d.ts').matchAll(/from '([^']+)'/g)].map(
    ([, from]) => from,
  );
  expect(imports.length).toBeGreaterThan(3);
  for (const from of imports) expect(from).toMatch(/^\.\.\/\.\.\/contracts\/[\w-]+\.ts$/);
});
