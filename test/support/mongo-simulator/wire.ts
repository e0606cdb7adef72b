/**
 * MongoDB's wire protocol, as far as the Node driver speaks it: OP_MSG, and OP_QUERY for the very first handshake.
 * Formats: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/ and
 * https://github.com/mongodb/specifications/blob/master/source/message/OP_MSG.md
 */
import { type Document, deserialize, serialize } from 'bson';

const opReply = 1;
const opQuery = 2004;
const opMsg = 2013;
const headerBytes = 16;
/** OP_MSG flag bits that we know; the lower 16 must be refused when they are not. */
const checksumPresent = 1;
const moreToCome = 2;

/** One request of a client. `legacy`: it wants its answer as OP_REPLY. */
export interface WireRequest {
  requestId: number;
  command: Document;
  legacy: boolean;
  /** The client wants no answer. */
  silent: boolean;
}

/** Cuts what a socket brings into whole messages. */
export class MessageReader {
  #rest: Buffer = Buffer.alloc(0);

  /** @throws when the bytes are no message that we know: the connection is to be cut. */
  read(chunk: Buffer): WireRequest[] {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const requests: WireRequest[] = [];
    while (this.#rest.length >= 4) {
      const length = this.#rest.readInt32LE(0);
      if (length < headerBytes || length > 48_000_000) throw new Error(`A message of ${length} bytes`);
      if (this.#rest.length < length) break;
      requests.push(parse(this.#rest.subarray(0, length)));
      this.#rest = this.#rest.subarray(length);
    }
    return requests;
  }
}

function parse(message: Buffer): WireRequest {
  const requestId = message.readInt32LE(4);
  const opCode = message.readInt32LE(12);
  if (opCode === opQuery) {
    // flags, collection's name (cstring), skip, limit, query
    const query = message.indexOf(0, headerBytes + 4) + 1 + 8;
    return { requestId, command: documentAt(message, query).document, legacy: true, silent: false };
  }
  if (opCode !== opMsg) throw new Error(`Op code ${opCode} is not simulated`);
  const flags = message.readUInt32LE(headerBytes);
  if ((flags & 0xffff & ~(checksumPresent | moreToCome)) !== 0) throw new Error(`Unknown flags ${flags}`);
  const end = message.length - ((flags & checksumPresent) === 0 ? 0 : 4);
  let command: Document = {};
  const sequences: [string, Document[]][] = [];
  for (let at = headerBytes + 4; at < end; ) {
    const kind = message[at++];
    if (kind === 0) {
      const body = documentAt(message, at);
      command = body.document;
      at = body.end;
    } else if (kind === 1) {
      const sequenceEnd = at + message.readInt32LE(at);
      const nameEnd = message.indexOf(0, at + 4);
      const name = message.toString('utf8', at + 4, nameEnd);
      const documents: Document[] = [];
      for (at = nameEnd + 1; at < sequenceEnd; ) {
        const next = documentAt(message, at);
        documents.push(next.document);
        at = next.end;
      }
      sequences.push([name, documents]);
    } else throw new Error(`A section of kind ${kind} is not simulated`);
  }
  return {
    requestId,
    command: { ...command, ...Object.fromEntries(sequences) },
    legacy: false,
    silent: (flags & moreToCome) !== 0,
  };
}

function documentAt(message: Buffer, at: number): { document: Document; end: number } {
  const end = at + message.readInt32LE(at);
  return { document: deserialize(message.subarray(at, end)), end };
}

/** The bytes of an answer. */
export function encodeReply(request: WireRequest, reply: Document): Buffer {
  const body = serialize(reply);
  // OP_REPLY: flags, cursor id (8), starting from, number returned = 1. OP_MSG: flags, section kind 0
  const head = Buffer.alloc(headerBytes + (request.legacy ? 20 : 5));
  head.writeInt32LE(head.length + body.length, 0);
  head.writeInt32LE(request.requestId, 8);
  head.writeInt32LE(request.legacy ? opReply : opMsg, 12);
  if (request.legacy) head.writeInt32LE(1, headerBytes + 16);
  return Buffer.concat([head, body]);
}
