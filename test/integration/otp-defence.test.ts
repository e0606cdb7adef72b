/** Pumping of sign-in codes, at the real door: by number blocks, networks and countries; and who signs in is not in the way. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { otpWatch, windowMs } from '../../services/accounts/otp-watch.ts';
import { request, signIn } from '../support/clients.ts';
import { type System, startSystem } from '../support/system.ts';

let system: System;
let redis: Redis;
beforeAll(async () => {
  system = await startSystem({
    only: ['api', 'accounts', 'notify', 'monitor'],
    env: {
      OTP_COUNTRIES: 'IN',
      OTP_PER_PREFIX_PER_HOUR: '3',
      OTP_PER_NETWORK_PER_HOUR: '5',
      TRUSTED_PROXIES: '1',
    },
  });
  redis = new Redis(system.config.redisUrl!);
}, 60_000);
afterAll(async () => {
  await redis.quit();
  await system.stop();
});

const ask = async (phone: string, ip: string) => {
  const { status, body, headers } = await request(system, 'POST', '/api/v1/auth/otp', {
    body: { phone },
    headers: { 'x-forwarded-for': ip },
  });
  return [status, body.error?.code, headers.get('retry-after') !== null];
};
const taken = [202, undefined, false];
const tooMany = [429, 'OTP_TOO_MANY', true];

test('R4.7 a block of numbers gets so many codes an hour, from wherever they are asked for', async () => {
  for (let n = 0; n < 3; n++) expect(await ask(`+9198111100${10 + n}`, `198.51.${n}.1`)).toEqual(taken);
  expect(await ask('+919811110013', '203.0.113.1')).toEqual(tooMany);
  // Its neighbour is none of it
  expect(await ask('+919811120013', '203.0.113.1')).toEqual(taken);
});

test('R4.7 a network gets so many codes an hour, for whatever numbers; of IPv6 it is the /64', async () => {
  for (const [network, host] of [
    ['192.0.2.', (n: number) => `192.0.2.${n}`],
    ['2001:db8:7:7::', (n: number) => `2001:db8:7:7::${n}`],
  ] as const) {
    const digit = network.includes(':') ? 3 : 4;
    for (let n = 0; n < 5; n++) expect(await ask(`+9198${digit}${n}222222`, host(n + 1))).toEqual(taken);
    expect(await ask(`+9198${digit}9222222`, host(99))).toEqual(tooMany);
  }
});

test('R4.7 a country that is not served is refused with a code, alike for every number of it', async () => {
  for (const phone of ['+12025550123', '+442079460123', '+12025550199'])
    expect(await ask(phone, '203.0.113.77')).toEqual([403, 'OTP_COUNTRY_REFUSED', false]);
});

test('R4.7 codes that are used give their places back: people who sign in are not counted', async () => {
  // signIn asks from one address, and its numbers are of one block
  for (let n = 0; n < 7; n++)
    expect((await signIn(system, `+91987654321${n}`)).token).toEqual(expect.any(String));
});

test('R4.7 a spike is told once in its window, and again in the next while it lasts', async () => {
  let now = 100 * windowMs;
  const watch = otpWatch(redis, { least: 10, clock: () => now });
  const pump = async (times: number) => {
    const told: unknown[] = [];
    for (let n = 0; n < times; n++) {
      const spike = await watch.requested('XK');
      if (spike) told.push(spike);
    }
    return told;
  };
  expect(await pump(30)).toEqual([{ requested: 10, used: 0 }]);
  now += windowMs;
  expect(await pump(30)).toHaveLength(1);
  // A crowd that signs in is none
  now += 3 * windowMs;
  for (let n = 0; n < 40; n++) {
    expect(await watch.requested('XK')).toBeNull();
    await watch.used('XK');
  }
});

test('R4.7 codes asked for and used are counted by country', async () => {
  const text = await (await fetch(`${system.metricsUrl}/metrics`)).text();
  expect(text).toMatch(/otp_total\{.*country="IN",what="requested".*\} [1-9]/);
  expect(text).toMatch(/otp_total\{.*country="IN",what="used".*\} 7/);
});
