/** The thread of balancer-checks.ts. */
import { createServer } from 'node:http';
import { parentPort, workerData } from 'node:worker_threads';
import { answerTo, type ChecksData, vacancyPath } from './balancer-checks.ts';

const { port, host, shown } = workerData as ChecksData;

const server = createServer((request, response) => {
  const silentMs = Number(process.hrtime.bigint() - Atomics.load(shown, 0)) / 1e6;
  const answer = request.url === vacancyPath ? answerTo(silentMs, Atomics.load(shown, 1) === 1n) : 404;
  if (answer === 'nothing') request.socket.destroy();
  else response.writeHead(answer, { Connection: 'close' }).end();
});
server.listen(port, host, () => parentPort?.postMessage('listening'));
