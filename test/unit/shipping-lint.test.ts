/**
 * What hadolint and `docker compose config` would say, without a Docker engine: the rules of hadolint that apply here, by
 * their numbers (https://github.com/hadolint/hadolint#rules), and compose.yaml as a document with merges and references
 * resolved. Where the compose command is installed it is asked as well; it needs no engine for that.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
// A YAML parser that the linter of the API's description brings along
import { parseYaml } from '@redocly/openapi-core';
import { z } from 'zod';

interface Instruction {
  name: string;
  rest: string;
}

/** What is wrong with a Dockerfile, a line each. */
function lintDockerfile(text: string): string[] {
  const instructions: Instruction[] = text
    .replace(/^\s*#.*\n/gm, '')
    .replace(/\\\n\s*/g, ' ')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => ({ name: line.split(/\s/, 1)[0] ?? '', rest: line.replace(/^\S+\s*/, '') }));
  const problems: string[] = [];
  const report = (rule: string, { name, rest }: Instruction) =>
    void problems.push(`${rule}: ${name} ${rest}`.slice(0, 120));
  const known =
    /^(FROM|ARG|LABEL|RUN|ENV|COPY|WORKDIR|USER|EXPOSE|STOPSIGNAL|HEALTHCHECK|CMD|ENTRYPOINT|VOLUME|SHELL)$/;
  const stages: string[] = [];
  let inStage: Instruction[] = [];
  for (const each of instructions) {
    const { name, rest } = each;
    // ADD and MAINTAINER among them (DL3020, DL4000); lower case is legal and unusual
    if (!known.test(name)) report('unknown or not wanted', each);
    if (name === 'FROM') {
      const [image = '', , stage] = rest.split(/\s+/);
      inStage = [];
      if (!stages.includes(image) && !/^[\w./-]+:[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?$/.test(image))
        report('DL3006 no version', each);
      if (/:latest/.test(image)) report('DL3007 latest', each);
      if (stage) stages.push(stage);
    }
    if (['CMD', 'ENTRYPOINT', 'HEALTHCHECK'].includes(name) && inStage.some((other) => other.name === name))
      report('DL4003 more than one', each);
    if (name === 'WORKDIR' && !rest.startsWith('/')) report('DL3000 not absolute', each);
    if (/^(CMD|ENTRYPOINT)$/.test(name) && !rest.startsWith('[')) report('DL3025 no exec form', each);
    if (name === 'COPY') {
      const paths = rest.split(/\s+/).filter((word) => !word.startsWith('--'));
      if (paths.length > 2 && !paths.at(-1)?.endsWith('/')) report('DL3021 several into no folder', each);
      if (paths.slice(0, -1).some((path) => path === '.')) report('copies everything', each);
      const [, from] = /--from=(\S+)/.exec(rest) ?? [];
      if (from && !stages.includes(from)) report('DL3022 unknown stage', each);
    }
    if (name === 'RUN') {
      if (/\bsudo\b/.test(rest)) report('DL3004 sudo', each);
      if (/(^|\s)cd\s/.test(rest)) report('DL3003 cd', each);
      if (/\bnpm (i|install)\b/.test(rest)) report('DL3016 no lock file', each);
      if (/[^|]\|[^|]/.test(rest) && !/pipefail/.test(rest)) report('DL4006 no pipefail', each);
      if (/apt-get install/.test(rest) && !/rm -rf \/var\/lib\/apt\/lists/.test(rest))
        report('DL3009 lists', each);
      if (/\bcurl\b|\bwget\b/.test(rest)) report('fetches without a checksum', each);
    }
    if (/^(ARG|ENV|LABEL)$/.test(name) && /(secret|token|password|key)\w*=/i.test(rest))
      report('a secret', each);
    inStage.push(each);
  }
  const user = inStage.findLast(({ name }) => name === 'USER');
  if (!user || /^(root|0)(:|$)/.test(user.rest)) problems.push('DL3002: the last user is root');
  if (!inStage.some(({ name }) => name === 'HEALTHCHECK')) problems.push('DL3057: no health check');
  if (stages.length === 0) problems.push('one stage only');
  return problems;
}

describe('the Dockerfile', () => {
  const dockerfile = readFileSync('Dockerfile', 'utf8');
  test('keeps the rules of a linter', () => {
    expect(lintDockerfile(dockerfile)).toEqual([]);
  });

  test.each<[string, (text: string) => string, string]>([
    ['an image without version', (t) => t.replace(/^FROM node:\S+/m, 'FROM node'), 'DL3006'],
    ['the latest image', (t) => t.replace(/^FROM node:\S+/m, 'FROM node:latest'), 'DL3007'],
    ['root', (t) => t.replace(/^USER .*$/m, 'USER root'), 'DL3002'],
    ['no user', (t) => t.replace(/^USER .*$/m, ''), 'DL3002'],
    ['a shell before Node', (t) => t.replace(/^CMD .*$/m, 'CMD npm start'), 'DL3025'],
    ['everything copied', (t) => `${t}\nCOPY . .\n`, 'copies everything'],
    ['a secret in the image', (t) => `${t}\nENV SESSION_SECRET=x\n`, 'a secret'],
    ['a file from the network', (t) => `${t}\nADD https://example.org/x /x\n`, 'not wanted'],
    ['no health check', (t) => t.replace(/^HEALTHCHECK[^\n]*\\\n[^\n]*\n/m, ''), 'DL3057'],
    ['packages without the lock file', (t) => t.replace('npm ci', 'npm install'), 'DL3016'],
  ])('would be found with %s', (_, change, rule) => {
    expect(lintDockerfile(change(dockerfile)).join('\n')).toContain(rule);
  });
});

const duration = z.string().regex(/^\d+(ms|s|m|h)$/);
const size = z.string().regex(/^\d+[bkmg]$/);
const names = z.array(z.string());
/** The part of the compose specification that is used here; anything else is refused, as compose refuses a typing error. */
const composeService = z.strictObject({
  image: z.string(),
  build: z.strictObject({ context: z.string(), args: z.record(z.string(), z.string()) }).optional(),
  restart: z.enum(['unless-stopped', 'always', 'on-failure']),
  read_only: z.literal(true),
  cap_drop: z.tuple([z.literal('ALL')]),
  security_opt: z.tuple([z.literal('no-new-privileges:true')]),
  pids_limit: z.int().positive(),
  logging: z.strictObject({ driver: z.string() }),
  user: z.string().optional(),
  hostname: z.string().optional(),
  command: names.optional(),
  entrypoint: names.optional(),
  environment: z.record(z.string(), z.string()).optional(),
  secrets: names.optional(),
  ports: names.optional(),
  networks: names.min(1),
  volumes: z.array(z.string().regex(/^[\w-]+:\/[\w/-]+$/)).optional(),
  tmpfs: names.optional(),
  profiles: names.optional(),
  mem_limit: size,
  stop_grace_period: duration.optional(),
  depends_on: z.record(z.string(), z.strictObject({ condition: z.literal('service_healthy') })).optional(),
  healthcheck: z
    .strictObject({
      test: z.tuple([z.enum(['CMD', 'CMD-SHELL'])]).rest(z.string()),
      interval: duration,
      timeout: duration,
      start_period: duration,
      retries: z.int().optional(),
    })
    .optional(),
});
const composeFile = z.object({
  name: z.string(),
  services: z.record(z.string(), composeService),
  networks: z.record(z.string(), z.strictObject({ internal: z.boolean().optional() })),
  volumes: z.record(z.string(), z.null()),
  secrets: z.record(z.string(), z.strictObject({ file: z.string() })),
});

describe('compose.yaml', () => {
  const text = readFileSync('compose.yaml', 'utf8');
  const compose = composeFile.parse(parseYaml(text));
  const services = Object.entries(compose.services);

  test('refers to nothing that is not there, and has nothing that nobody uses', () => {
    const used = { networks: new Set<string>(), volumes: new Set<string>(), secrets: new Set<string>() };
    for (const [name, service] of services) {
      for (const network of service.networks) used.networks.add(network);
      for (const volume of service.volumes ?? []) used.volumes.add(volume.split(':')[0] ?? '');
      for (const secret of service.secrets ?? []) used.secrets.add(secret);
      for (const other of Object.keys(service.depends_on ?? {})) {
        const needed = compose.services[other];
        // What a profile leaves out nobody may wait for
        expect([name, other, needed?.profiles]).toEqual([name, other, undefined]);
        expect([name, other, needed?.healthcheck]).toEqual([name, other, expect.anything()]);
      }
    }
    for (const kind of ['networks', 'volumes', 'secrets'] as const)
      expect([kind, [...used[kind]].toSorted()]).toEqual([kind, Object.keys(compose[kind]).toSorted()]);
  });

  test('has the stores: two Redis that keep, NATS, MongoDB as a replica set that makes itself, ClamAV', () => {
    expect(Object.keys(compose.services)).toEqual(
      expect.arrayContaining(['redis', 'sos-redis', 'nats', 'mongo', 'clamav']),
    );
    const { mongo, redis, nats } = compose.services;
    expect(mongo?.command).toEqual(expect.arrayContaining(['--replSet', 'rs0']));
    const check = mongo?.healthcheck?.test.join(' ') ?? '';
    expect(check).toContain('rs.initiate');
    expect(check).toContain('isWritablePrimary');
    expect(redis?.healthcheck?.test.join(' ')).toContain('redis-cli ping');
    expect(nats?.healthcheck?.test.join(' ')).toContain('/healthz');
  });

  test('checks the health of everything: roles and ClamAV by what is in their images', () => {
    const unchecked = services.filter(([, service]) => !service.healthcheck);
    for (const [name, { image }] of unchecked)
      expect([name, image]).toEqual([name, expect.stringMatching(/^(ride-safety:|clamav\/clamav:)/)]);
    expect(readFileSync('Dockerfile', 'utf8')).toMatch(/^HEALTHCHECK /m);
  });

  test('keeps secrets out of the environment, and stores off the network outside', () => {
    for (const [name, { environment = {}, networks, ports }] of services) {
      for (const key of Object.keys(environment))
        if (/SECRET|TOKEN|KEYS|PASSWORD/.test(key))
          expect([name, key]).toEqual([name, expect.stringMatching(/_FILE$/)]);
      if (/redis|nats|mongo/.test(name))
        expect([name, networks, ports]).toEqual([name, ['stores'], undefined]);
    }
    expect(compose.networks['stores']).toEqual({ internal: true });
  });

  test('has its secrets in files that git and the image never see', () => {
    for (const { file } of Object.values(compose.secrets))
      expect(file).toMatch(/^\.\/secrets\/[a-z][a-z0-9_]*$/);
    expect(readFileSync('.gitignore', 'utf8')).toMatch(/^\/?secrets\/?$/m);
  });

  test('uses only variables that have a default or say what is missing', () => {
    const variables = [...text.matchAll(/\$\{([^}]*)\}/g)].map(([, inside]) => inside);
    for (const variable of variables) expect(variable).toMatch(/^[A-Z][A-Z0-9_]*(:-[^}]*|:\?is .+)$/);
    expect(text.replace(/\$\{[^}]*\}/g, '')).not.toContain('$');
  });

  test('is taken by compose itself, where it is installed', () => {
    const version = spawnSync('docker', ['compose', 'version'], { encoding: 'utf8' });
    if (version.error || version.status !== 0) return expect(services.length).toBeGreaterThan(0);
    const env = {
      PATH: process.env['PATH'],
      TWILIO_ACCOUNT_SID: 'AC1',
      TWILIO_FROM: '+1',
      MSG91_TEMPLATE_IDS: `otp_v1_en:${'b'.repeat(24)}`,
      WHATSAPP_PHONE_NUMBER_ID: '1',
      EMAIL_FROM: 'rides@example.org',
      SES_CONFIGURATION_SET: 'events',
      ONCALL_PHONE: '+919811111111',
    };
    const checked = spawnSync('docker', ['compose', '--profile', '*', 'config', '--quiet'], {
      encoding: 'utf8',
      env,
    });
    expect([checked.status, checked.stderr]).toEqual([0, '']);
  });
});
