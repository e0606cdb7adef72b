/**
 * A Socket.IO client that is little more than its TCP connection, so that one process can be thousands of them: WebSocket
 * (RFC 6455), Engine.IO protocol 4 and Socket.IO protocol 5, text only, namespace `/`.
 */
import { createHash, randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';

export interface LeanOptions {
  url: string;
  auth: object;
  /** Let in by the server. */
  onConnect: () => void;
  /** The end, of whatever is or is not there yet; `why` is the server's refusal or what the connection met. */
  onEnd: (why: string) => void;
  onEvent?: (name: string, payload: unknown) => void;
}

export interface LeanSocket {
  /** The acknowledgement's first argument. It never comes when the connection ends before. */
  ask(event: string, payload: unknown): Promise<unknown>;
  /** Whatever the caller thinks that a client says; Socket.IO's packet as text (`42["event",…]`). */
  send(packet: string): void;
  /** Without a goodbye, as when a phone loses its network; `onEnd` is not called. */
  drop(): void;
}

/** RFC 6455, 1.3. */
const magic = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const [text, close, ping, pong] = [0x1, 0x8, 0x9, 0xa];

/** A client's frame, masked with zeroes (RFC 6455, 5.3): what it hides from proxies is of no use here. */
export function clientFrame(opcode: number, payload: Buffer): Buffer {
  const { length } = payload;
  const size = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const frame = Buffer.alloc(2 + size + 4 + length);
  frame[0] = 0x80 | opcode;
  frame[1] = 0x80 | (size === 0 ? length : size === 2 ? 126 : 127);
  if (size === 2) frame.writeUInt16BE(length, 2);
  if (size === 8) frame.writeBigUInt64BE(BigInt(length), 2);
  payload.copy(frame, 2 + size + 4);
  return frame;
}

/** The first of a server's frames in `bytes` and what is behind it; null when it is not all there. */
export function serverFrame(bytes: Buffer): { opcode: number; payload: Buffer; rest: Buffer } | null {
  if (bytes.length < 2) return null;
  const [first = 0, second = 0] = bytes;
  if ((first & 0x80) === 0 || (second & 0x80) !== 0) throw new Error('A frame that no server sends');
  const size = second < 126 ? 0 : second === 126 ? 2 : 8;
  if (bytes.length < 2 + size) return null;
  const length = size === 0 ? second : size === 2 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
  const end = 2 + size + length;
  if (bytes.length < end) return null;
  return { opcode: first & 0x0f, payload: bytes.subarray(2 + size, end), rest: bytes.subarray(end) };
}

/** How long Socket.IO's client waits before it tries to come back, ms: 1 s, doubled with each failure since, half by chance. */
export const comeBackAfterMs = (failures: number, random: number): number =>
  Math.min(5000, 1000 * 2 ** failures * (0.5 + random));

export function openLean({ url, auth, onConnect, onEnd, onEvent }: LeanOptions): LeanSocket {
  const { hostname, port } = new URL(url);
  const tcp: Socket = connect({ host: hostname, port: Number(port), noDelay: true });
  const key = randomBytes(16).toString('base64');
  const asked = new Map<number, (answer: unknown) => void>();
  let nextId = 0;
  let isUpgraded = false;
  let bytes: Buffer = Buffer.alloc(0);
  let isOver = false;
  const end = (why: string) => {
    if (isOver) return;
    isOver = true;
    tcp.destroy();
    onEnd(why);
  };
  const send = (packet: string) => void tcp.write(clientFrame(text, Buffer.from(packet)));

  /** True once the server has agreed to speak WebSocket. */
  function upgraded(): boolean {
    const length = bytes.indexOf('\r\n\r\n');
    if (length < 0) return false;
    const head = bytes.subarray(0, length).toString('latin1');
    bytes = bytes.subarray(length + 4);
    const accept = createHash('sha1')
      .update(key + magic)
      .digest('base64');
    if (head.startsWith('HTTP/1.1 101') && head.includes(accept)) return true;
    throw new Error(head.split('\r\n', 1)[0]);
  }

  function hear(packet: string): void {
    if (packet === '2') send('3');
    else if (packet.startsWith('0')) send(`40${JSON.stringify(auth)}`);
    else if (packet.startsWith('40')) onConnect();
    else if (packet.startsWith('41')) end('io server disconnect');
    else if (packet.startsWith('42')) {
      const [name, payload] = JSON.parse(packet.slice(2)) as [string, unknown];
      onEvent?.(name, payload);
    } else if (packet.startsWith('43')) {
      const [, id = '', answer = ''] = /^43(\d+)(.*)$/s.exec(packet) ?? [];
      asked.get(Number(id))?.((JSON.parse(answer) as unknown[])[0]);
      asked.delete(Number(id));
    } else if (packet.startsWith('44')) {
      const { message, data } = JSON.parse(packet.slice(2)) as { message: string; data?: { code: string } };
      end(data?.code ?? message);
    }
  }

  tcp.once('connect', () => {
    const lines = [
      'GET /socket.io/?EIO=4&transport=websocket HTTP/1.1',
      `Host: ${hostname}:${port}`,
      'Upgrade: websocket',
      'Connection: Upgrade',
      `Sec-WebSocket-Key: ${key}`,
      'Sec-WebSocket-Version: 13',
      // What a browser sends besides
      'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits',
      'User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36',
      'Accept-Encoding: gzip, deflate, br, zstd',
      'Accept-Language: en-IN,en;q=0.9',
      'Cache-Control: no-cache',
      'Pragma: no-cache',
    ];
    tcp.write(`${lines.join('\r\n')}\r\n\r\n`);
  });
  tcp.on('data', (chunk: Buffer) => {
    bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk]);
    try {
      isUpgraded ||= upgraded();
      if (!isUpgraded) return;
      for (let frame = serverFrame(bytes); frame; frame = isOver ? null : serverFrame(bytes)) {
        bytes = frame.rest;
        if (frame.opcode === text) hear(frame.payload.toString());
        else if (frame.opcode === ping) tcp.write(clientFrame(pong, frame.payload));
        else if (frame.opcode === close) end('closed');
      }
      // A view of one byte would keep the whole chunk
      bytes = bytes.length === 0 ? Buffer.alloc(0) : Buffer.from(bytes);
    } catch (error) {
      end(error instanceof Error ? error.message : String(error));
    }
  });
  tcp.on('error', (error) => end(error.message));
  tcp.on('close', () => end('transport close'));
  return {
    ask: (event, payload) =>
      new Promise((resolve) => {
        asked.set(nextId, resolve);
        send(`42${nextId++}${JSON.stringify([event, payload])}`);
      }),
    send,
    drop() {
      isOver = true;
      tcp.destroy();
    },
  };
}
