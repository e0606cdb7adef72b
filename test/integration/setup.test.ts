import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';

// Everything else that bin/setup may call is a stub, so that nothing real is installed
const realTools = [
  'sh',
  'env',
  'cat',
  'chmod',
  'cksum',
  'dirname',
  'flock',
  'grep',
  'mkdir',
  'mktemp',
  'paste',
  'rm',
  'tee',
  'tr',
  'true',
];

let machine: string;

/** Puts a program into the machine that notes its call in `calls` and then runs `script`. */
function program(name: string, script = '') {
  const file = name.includes('/') ? join(machine, name) : join(machine, 'bin', name);
  const note = `echo "${name.replace(/.*\//, '')} $*" >>"${machine}/calls"`;
  writeFileSync(file, `#!/bin/sh\n${note}\n${script}\n`, { mode: 0o755 });
}

function setup(need = 'start') {
  const begun = performance.now();
  const run = spawnSync('/bin/sh', [join(machine, 'clone/bin/setup'), need], {
    env: {
      PATH: `${machine}/clone/node_modules/.bin:${machine}/bin`,
      TMPDIR: machine,
      POLICY_RC_D: join(machine, 'policy-rc.d'),
    },
    encoding: 'utf8',
  });
  const calls = existsSync(join(machine, 'calls')) ? readFileSync(join(machine, 'calls'), 'utf8') : '';
  return {
    code: run.status,
    stdout: run.stdout,
    stderr: run.stderr,
    ms: performance.now() - begun,
    /** What was called of the programs that change the machine. */
    calls: calls.split('\n').filter((line) => /^(apt-get|npm|sudo)/.test(line)),
  };
}

const npmCi = 'npm ci --include=dev --include=optional --no-progress --loglevel=error';
const apt = 'apt-get -q -y -o DPkg::Lock::Timeout=300';

/** A machine with all that a clone needs, after its first `npm ci`. */
beforeEach(() => {
  machine = mkdtempSync(join(tmpdir(), 'setup-'));
  mkdirSync(join(machine, 'bin'));
  mkdirSync(join(machine, 'clone/bin'), { recursive: true });
  mkdirSync(join(machine, 'clone/node_modules/.bin'), { recursive: true });
  for (const tool of realTools) {
    const real = ['/bin', '/usr/bin'].map((directory) => join(directory, tool)).find(existsSync);
    if (real) symlinkSync(real, join(machine, 'bin', tool));
  }
  cpSync(join(import.meta.dirname, '../../bin/setup'), join(machine, 'clone/bin/setup'));
  writeFileSync(join(machine, 'clone/package-lock.json'), '{}');
  program('uname', 'case "$1" in -s) echo Linux ;; -m) echo x86_64 ;; esac');
  program('id', 'echo 0');
  program('node', 'echo v20.1.0');
  program('npm', 'mkdir -p node_modules/.bin');
  program('apt-get');
  program('redis-server');
  program('nats-server');
  program('haproxy');
  program('clone/node_modules/.bin/node', 'echo v24.0.0');
  setup();
  rmSync(join(machine, 'calls'));
});

afterEach(() => rmSync(machine, { recursive: true }));

describe('nothing is missing', () => {
  test.each(['start', 'cluster', 'test'])('setup %s is silent, quick and changes nothing', (need) => {
    const { ms, ...seen } = setup(need);
    expect(seen).toEqual({ code: 0, stdout: '', stderr: '', calls: [] });
    expect(ms).toBeLessThan(2000);
  });
});

describe('a Debian package is missing', () => {
  beforeEach(() => rmSync(join(machine, 'bin/redis-server')));

  test('root gets it by one apt-get call, and the package does not start its server', () => {
    program('apt-get', `cat "${machine}/policy-rc.d" >"${machine}/policy-seen"`);
    expect(setup()).toMatchObject({
      code: 0,
      stdout: 'Installing redis-server …\n',
      stderr: '',
      calls: [`${apt} install --no-install-recommends redis-server`],
    });
    expect(readFileSync(join(machine, 'policy-seen'), 'utf8')).toBe('#!/bin/sh\nexit 101\n');
    expect(existsSync(join(machine, 'policy-rc.d'))).toBe(false);
  });

  test("a machine's own policy for starting servers stays as it is", () => {
    writeFileSync(join(machine, 'policy-rc.d'), 'its own');
    expect(setup().code).toBe(0);
    expect(readFileSync(join(machine, 'policy-rc.d'), 'utf8')).toBe('its own');
  });

  test('the lists are fetched when the package is not found at first', () => {
    program('apt-get', `case "$*" in *update*) >"${machine}/lists" ;; *) [ -e "${machine}/lists" ] ;; esac`);
    const install = `${apt} install --no-install-recommends redis-server`;
    expect(setup()).toMatchObject({ code: 0, calls: [install, `${apt} update`, install] });
  });

  test('a failure shows what apt-get said, and leaves no policy behind', () => {
    program('apt-get', 'echo "E: disk full" >&2; exit 100');
    const { code, stderr } = setup();
    expect(code).toBe(1);
    expect(stderr).toBe('E: disk full\nCould not install redis-server.\n');
    expect(existsSync(join(machine, 'policy-rc.d'))).toBe(false);
  });

  test('sudo without a password serves as well', () => {
    program('id', 'echo 1000');
    program('sudo', 'shift; exec "$@"');
    const { code, calls } = setup();
    expect(code).toBe(0);
    expect(calls).toContain(
      `sudo -n env DEBIAN_FRONTEND=noninteractive ${apt} install --no-install-recommends redis-server`,
    );
  });

  test.each([
    ['no rights', () => program('id', 'echo 1000')],
    [
      'a sudo that asks',
      () => {
        program('id', 'echo 1000');
        program('sudo', 'exit 1');
      },
    ],
    ['no apt-get', () => rmSync(join(machine, 'bin/apt-get'))],
  ])('with %s one line says how to install it', (_, arrange) => {
    arrange();
    const { code, stdout, stderr, calls } = setup();
    expect(code).toBe(1);
    expect(stdout).toBe('');
    expect(stderr).toBe(
      'Missing: redis-server. Install by hand; on Debian or Ubuntu: sudo apt-get install redis-server\n',
    );
    expect(calls.filter((call) => !call.startsWith('sudo'))).toEqual([]);
  });
});

describe('the npm packages', () => {
  test('are installed anew when package-lock.json changed, once', () => {
    appendFileSync(join(machine, 'clone/package-lock.json'), '\n');
    expect(setup()).toMatchObject({
      code: 0,
      stdout: 'Installing npm packages …\n',
      stderr: '',
      calls: [npmCi],
    });
    expect(setup()).toMatchObject({ code: 0, stdout: '', calls: [npmCi] });
  });

  test('are installed on a fresh clone by the node of the machine', () => {
    rmSync(join(machine, 'clone/node_modules'), { recursive: true });
    const bin = `${machine}/clone/node_modules/.bin`;
    program(
      'npm',
      `node --version >"${machine}/npm-node"; mkdir -p "${bin}"; printf '#!/bin/sh\\necho v24.0.0\\n' >"${bin}/node"; chmod 755 "${bin}/node"`,
    );
    expect(setup()).toMatchObject({ code: 0, calls: [npmCi] });
    expect(readFileSync(join(machine, 'npm-node'), 'utf8')).toBe('v20.1.0\n');
  });

  test('are tried again after a failure, which shows what npm said', () => {
    appendFileSync(join(machine, 'clone/package-lock.json'), '\n');
    program('npm', 'echo "npm error network" >&2; exit 1');
    expect(setup()).toMatchObject({ code: 1, stderr: 'npm error network\nnpm ci failed.\n' });
    program('npm');
    expect(setup()).toMatchObject({ code: 0, calls: [npmCi, npmCi] });
  });

  test('of another checkout, linked here, are left alone', () => {
    rmSync(join(machine, 'clone/node_modules/.package-lock-checksum'));
    renameSync(join(machine, 'clone/node_modules'), join(machine, 'node_modules'));
    symlinkSync(join(machine, 'node_modules'), join(machine, 'clone/node_modules'));
    expect(setup()).toMatchObject({ code: 0, stdout: '', calls: [] });
  });
});

describe('node', () => {
  test.each([
    ['older than 20', 'Linux', 'x86_64', 'v18.20.0', 'Node.js 20 or newer with npm is needed here.\n'],
    [
      'older than 24 where the npm packages bring none',
      'Darwin',
      'arm64',
      'v22.1.0',
      'Node.js 24 or newer with npm is needed here.\n',
    ],
  ])('%s is refused with one line', (_, system, processor, version, line) => {
    program('uname', `case "$1" in -s) echo ${system} ;; -m) echo ${processor} ;; esac`);
    program('node', `echo ${version}`);
    expect(setup()).toMatchObject({ code: 1, stdout: '', stderr: line, calls: [] });
  });

  test('in node_modules that is not 24 is refused with one line', () => {
    program('clone/node_modules/.bin/node', 'echo v22.0.0');
    expect(setup()).toMatchObject({
      code: 1,
      stderr:
        'Node.js 24 is needed and node_modules/.bin/node is not it: remove node_modules and try again.\n',
    });
  });
});
