import { EventEmitter } from 'node:events';
import type { Server } from 'node:http';
import { PassThrough } from 'node:stream';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Turns, takeHandshakesInTurn } from '../../../services/gateway/turns.ts';

const turnOfTheLoop = () => new Promise((resolve) => setImmediate(resolve));

describe('turns', () => {
  test('go to all who wait, in their order, each for as long as it works at once', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(20), { minLength: 1, maxLength: 60 }), async (tookMs) => {
        let clock = 0;
        const turns = new Turns(() => clock);
        const served: number[] = [];
        await Promise.all(
          tookMs.map(async (ms, n) => {
            await turns.next();
            served.push(n);
            clock += ms;
          }),
        );
        expect(served).toEqual([...tookMs.keys()]);
      }),
    );
  });

  test('R3.3 leave the event loop to others after 5 ms, or a fifth of the time when the others take long', async () => {
    let clock = 0;
    const turns = new Turns(() => clock);
    let served = 0;
    const waiting = Array.from({ length: 100 }, async () => {
      await turns.next();
      served++;
      clock += 1;
    });
    const perTurn: number[] = [];
    for (const othersMs of [0, 0, 40, 0]) {
      const before = served;
      clock += othersMs;
      await turnOfTheLoop();
      // What one turn began it has done by the next
      perTurn.push(served - before);
    }
    expect(perTurn).toEqual([5, 5, 10, 5]);
    await Promise.all(waiting);
    expect(served).toBe(100);
  });

  test('the next one begins when all that one does at once is done, however often it waits for what is there', async () => {
    const turns = new Turns();
    const steps: string[] = [];
    await Promise.all(
      ['a', 'b', 'c'].map(async (name) => {
        await turns.next();
        for (let n = 0; n < 20; n++) await Promise.resolve();
        await new Promise<void>((resolve) => process.nextTick(resolve));
        steps.push(name, `${name} done`);
      }),
    );
    expect(steps).toEqual(['a', 'a done', 'b', 'b done', 'c', 'c done']);
  });

  test('a handshake whose client has gone meanwhile is nobody’s, and ends nothing', async () => {
    const server = new EventEmitter() as unknown as Server;
    const handled: unknown[] = [];
    server.on('upgrade', (_request, socket: unknown) => handled.push(socket));
    takeHandshakesInTurn(server, new Turns());
    const sockets = Array.from({ length: 3 }, () => new PassThrough());
    for (const socket of sockets) server.emit('upgrade', {}, socket, Buffer.alloc(0));
    sockets[1]?.emit('error', new Error('ECONNRESET'));
    await turnOfTheLoop();
    expect(handled).toEqual([sockets[0], sockets[2]]);
    expect(sockets[0]?.listenerCount('error')).toBe(0);
  });
});
