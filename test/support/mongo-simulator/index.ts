/**
 * A simulator of MongoDB for tests, where no server can be had: a replica set of a primary and a secondary that share
 * their data, over the real wire protocol on this machine. It knows the commands that we send and refuses the rest. It
 * keeps every command, so that tests can say what was sent; it can go away, be slow, hang, lose an answer, and say that it
 * is no primary. What it cannot show: plans and speed of real indexes, replication lag, elections, storage.
 *
 * Handshake and topology: https://github.com/mongodb/specifications (server discovery and monitoring); retryable writes:
 * the same place.
 */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { type Document, EJSON, Long } from 'bson';
import { Database, runCommand, writes } from './commands.ts';
import { Refusal } from './refusal.ts';
import { encodeReply, MessageReader, type WireRequest } from './wire.ts';

type Role = 'primary' | 'secondary';

export interface RecordedCommand {
  node: Role;
  name: string;
  command: Document;
}

export interface MongoSimulator {
  /** For MONGO_URI; the database is empty. */
  uri: string;
  /** What came, oldest first, without handshakes and pings; `name` for one kind. */
  commands(name?: string): RecordedCommand[];
  /** Forgets what came. */
  forget(): void;
  /** Open connections that have sent a command, over both nodes. */
  connections(): number;
  /** The most that one node has had at once. */
  peakConnections(): number;
  database(): Database;
  /** Refuses connections and cuts those that are open; its data stays. */
  halt(): Promise<void>;
  resume(): Promise<void>;
  /** Answers commands of these names (all, if none is named) after `ms`; Infinity is never. */
  delay(ms: number, ...names: string[]): void;
  /** The next `times` commands of this name are answered with this error instead. */
  fail(name: string, times: number, reply: Document): void;
  /** The next command of this name is carried out, but its answer is lost with the connection. */
  loseAnswer(name: string): void;
  stop(): Promise<void>;
}

interface Node {
  role: Role;
  server: Server;
  port: number;
  sockets: Set<Socket>;
  /** Those of them that have sent a command: the others watch. */
  working: Set<Socket>;
}

/** What the server says while it is not, or no longer, the primary. */
export const notPrimary: Document = {
  ok: 0,
  code: 10_107,
  codeName: 'NotWritablePrimary',
  errmsg: 'not primary',
  errorLabels: ['RetryableWriteError'],
};

const handshakes = new Set(['hello', 'ismaster', 'isMaster']);

/** `keepCommands: false` for one that runs for long: then nothing can be said about what was sent. */
export async function startMongoSimulator({ keepCommands = true } = {}): Promise<MongoSimulator> {
  const databases = new Map<string, Database>();
  const databaseOf = (name: string): Database => {
    const found = databases.get(name) ?? new Database(name);
    databases.set(name, found);
    return found;
  };
  const record: RecordedCommand[] = [];
  const faults: { name: string; times: number; reply: Document | 'lost' }[] = [];
  const timers = new Set<NodeJS.Timeout>();
  /** The last write of each session and its answer: a driver that got none sends the same once more. */
  const answered = new Map<string, { write: string; reply: Document }>();
  let peak = 0;
  let slow: { ms: number; names: string[] } = { ms: 0, names: [] };

  const hello = (node: Node): Document => {
    const hosts = nodes.map(({ port }) => `127.0.0.1:${port}`);
    return {
      helloOk: true,
      ismaster: node.role === 'primary',
      isWritablePrimary: node.role === 'primary',
      secondary: node.role === 'secondary',
      setName: 'simulator',
      setVersion: 1,
      hosts,
      primary: hosts[0],
      me: `127.0.0.1:${node.port}`,
      lastWrite: { lastWriteDate: new Date(), majorityWriteDate: new Date() },
      maxBsonObjectSize: 16_777_216,
      maxMessageSizeBytes: 48_000_000,
      maxWriteBatchSize: 100_000,
      localTime: new Date(),
      logicalSessionTimeoutMinutes: 30,
      // Wire version of 7.0
      minWireVersion: 0,
      maxWireVersion: 21,
      readOnly: false,
      ok: 1,
    };
  };

  function answer(node: Node, command: Document): Document | 'lost' {
    const [name = ''] = Object.keys(command);
    if (handshakes.has(name)) return hello(node);
    if (keepCommands && name !== 'ping' && name !== 'endSessions')
      record.push({ node: node.role, name, command });
    const fault = faults.find((one) => one.name === name && one.times > 0);
    if (fault) fault.times--;
    if (fault && fault.reply !== 'lost') return fault.reply;
    const mode = (command['$readPreference'] as { mode?: string } | undefined)?.mode ?? 'primary';
    try {
      if (node.role === 'secondary' && writes.has(name))
        throw new Refusal('NotWritablePrimary', 'not primary');
      if (node.role === 'secondary' && mode === 'primary' && name !== 'ping' && name !== 'endSessions')
        throw new Refusal('NotPrimaryNoSecondaryOk', 'not primary and secondaryOk=false');
      const session = EJSON.stringify(command['lsid']);
      const write = command['txnNumber'] === undefined ? undefined : EJSON.stringify(command['txnNumber']);
      const last = answered.get(session);
      const reply =
        write !== undefined && last?.write === write
          ? last.reply
          : runCommand(command, databaseOf(String(command['$db'] ?? 'test')));
      if (write !== undefined) answered.set(session, { write, reply });
      return fault ? 'lost' : reply;
    } catch (error) {
      if (error instanceof Refusal) return error.toReply();
      throw error;
    }
  }

  function respond(node: Node, socket: Socket, request: WireRequest): void {
    const [name = ''] = Object.keys(request.command);
    const send = () => {
      const reply = answer(node, request.command);
      if (reply === 'lost') socket.destroy();
      else if (!request.silent && socket.writable) socket.write(encodeReply(request, withLongs(reply)));
    };
    const isSlow = !handshakes.has(name) && (slow.names.length === 0 || slow.names.includes(name));
    if (slow.ms === 0 || !isSlow) return send();
    if (slow.ms === Number.POSITIVE_INFINITY) return;
    const timer = setTimeout(() => {
      timers.delete(timer);
      send();
    }, slow.ms);
    timers.add(timer);
  }

  function makeNode(role: Role): Node {
    const node: Node = { role, server: createServer(), port: 0, sockets: new Set(), working: new Set() };
    node.server.on('connection', (socket) => {
      node.sockets.add(socket);
      socket.setNoDelay(true);
      // A client that goes away in the middle is no concern of the simulator's
      socket.on('error', () => undefined);
      socket.on('close', () => {
        node.sockets.delete(socket);
        node.working.delete(socket);
      });
      const reader = new MessageReader();
      socket.on('data', (chunk) => {
        try {
          for (const request of reader.read(chunk)) {
            if (!handshakes.has(Object.keys(request.command)[0] ?? '')) {
              node.working.add(socket);
              peak = Math.max(peak, node.working.size);
            }
            respond(node, socket, request);
          }
        } catch (error) {
          process.stderr.write(`The MongoDB simulator cuts a connection: ${String(error)}\n`);
          socket.destroy();
        }
      });
    });
    return node;
  }

  async function listen(node: Node): Promise<void> {
    node.server.listen(node.port, '127.0.0.1');
    await once(node.server, 'listening');
    node.port = (node.server.address() as AddressInfo).port;
  }

  async function halt(): Promise<void> {
    for (const timer of timers) clearTimeout(timer);
    timers.clear();
    await Promise.all(
      nodes
        .filter(({ server }) => server.listening)
        .map(async ({ server, sockets }) => {
          const closed = once(server, 'close');
          server.close();
          for (const socket of sockets) socket.destroy();
          await closed;
        }),
    );
  }

  const nodes = [makeNode('primary'), makeNode('secondary')];
  for (const node of nodes) await listen(node);
  return {
    uri: `mongodb://${nodes.map(({ port }) => `127.0.0.1:${port}`).join(',')}/ride?replicaSet=simulator`,
    commands: (name) => record.filter((one) => name === undefined || one.name === name),
    forget() {
      record.length = 0;
    },
    connections: () => nodes.reduce((sum, { working }) => sum + working.size, 0),
    peakConnections: () => peak,
    database: () => databaseOf('ride'),
    halt,
    async resume() {
      for (const node of nodes) await listen(node);
    },
    delay(ms, ...names) {
      slow = { ms, names };
    },
    fail: (name, times, reply) => void faults.push({ name, times, reply }),
    loseAnswer: (name) => void faults.push({ name, times: 1, reply: 'lost' }),
    stop: halt,
  };
}

/** Cursor ids are 64-bit on the wire. */
function withLongs(reply: Document): Document {
  const cursor = reply['cursor'] as Document | undefined;
  return cursor ? { ...reply, cursor: { ...cursor, id: Long.fromBigInt(cursor['id'] as bigint) } } : reply;
}
