import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, test } from '@jest/globals';
import { createTwilioSms } from '../../lib/providers/twilio-sms.ts';

const start = (args: string[], env: Record<string, string> = {}) =>
  execFile(process.execPath, ['--disable-warning=ExperimentalWarning', 'bin/providers.ts', ...args], {
    env: { ...process.env, ...env },
  });

/** What a program says and how it ends. */
async function endOf(args: string[], env: Record<string, string> = {}) {
  const child = start(args, env);
  let output = '';
  child.stdout?.on('data', (text: string) => (output += text));
  child.stderr?.on('data', (text: string) => (output += text));
  const [code] = await once(child, 'close');
  return { code: Number(code), output };
}

describe('npm run providers', () => {
  test('prints its address, serves with the credentials of its environment, and ends at SIGTERM', async () => {
    const accountSid = `AC${'7'.repeat(32)}`;
    const child = start(['--max-messages', '3', '--latency-ms', '1', '--per-second', '100'], {
      TWILIO_ACCOUNT_SID: accountSid,
      TWILIO_AUTH_TOKEN: 'other',
    });
    const ended = once(child, 'close');
    const [line] = await once(child.stdout!, 'data');
    const baseUrl = String(line).trim();
    const sms = createTwilioSms({ accountSid, authToken: 'other', from: '+15005550006', baseUrl });
    for (let each = 0; each < 5; each += 1)
      await sms.send({ to: '+919800000001', body: `number ${each}` }, { timeoutMs: 5000 });
    expect(await (await fetch(`${baseUrl}/outbox`)).json()).toEqual({
      messages: [4, 3, 2].map((each) => expect.objectContaining({ text: `number ${each}` })),
    });
    child.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
  });

  test.each([
    [['--port', 'x'], {}, '--port'],
    [['--wrong'], {}, '--wrong'],
    [['--callbacks', 'x'], {}, '--callbacks'],
    [['--latency-ms', '-1'], {}, '--latency-ms'],
    [['--per-second', '0'], {}, '--per-second'],
    [[], { OTP_TTL_S: '-1' }, 'OTP_TTL_S'],
  ])('says what is wrong with %j %j', async (args, env, named) => {
    const { code, output } = await endOf(args, env);
    expect(code).toBe(2);
    expect(output).toContain(named);
  });

  test('helps, whatever else is wrong', async () => {
    const { code, output } = await endOf(['--help'], { OTP_TTL_S: '-1' });
    expect(code).toBe(0);
    expect(output).toContain('Usage');
  });
});
