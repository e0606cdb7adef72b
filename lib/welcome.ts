import type { Config } from './config.ts';

/** What a newcomer sees once everything runs: where it is, how to sign in, what to try. */
export function welcome(config: Config): string {
  const api = config.publicUrl ?? `http://localhost:${config.apiPort}`;
  const [admin] = config.adminPhones;
  const page =
    config.providersSandboxUrl === undefined
      ? ''
      : `                ${config.providersSandboxUrl}           the same as a page, with what became of them\n`;
  return `
  Ride safety is running.

    REST        ${api}/api/v1             described at ${api}/docs and ${api}/api/v1/openapi.json
    Sockets     http://localhost:${config.socketPort}/socket.io
    Messages    ${api}/dev/outbox           what would have been sent; sign-in codes are here
${page}    Metrics     http://localhost:${config.metricsPort}/metrics
    Data        ${config.dataDir}

    Demo logins (any valid number works; the code is in the outbox)
      rider     +919800000001
      driver    +919800000002               becomes one by POST /api/v1/me/driver
      admin     ${admin ?? 'set ADMIN_PHONES'}

    Watch real drives move:  npm run simulate -- --trips 20 --speedup 10
    Stop:                    Ctrl-C
`;
}
