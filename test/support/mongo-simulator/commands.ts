/**
 * The commands that our code and the Node driver send, and no others: an unknown command, field or stage is refused as
 * the server would. Shapes: https://www.mongodb.com/docs/manual/reference/command/
 */
import { type Document, EJSON } from 'bson';
import { aggregate, Query } from 'mingo';
import { type IndexSpec, SimulatedCollection } from './collection.ts';
import { Refusal } from './refusal.ts';

type Run = (command: Document, database: Database) => Document;

/** Fields that any command may carry. */
const generic = [
  '$db',
  '$readPreference',
  '$clusterTime',
  'lsid',
  'txnNumber',
  'writeConcern',
  'readConcern',
  'maxTimeMS',
  'comment',
];

export class Database {
  readonly name: string;
  readonly collections = new Map<string, SimulatedCollection>();
  readonly #cursors = new Map<bigint, { ns: string; rest: Document[] }>();
  #lastCursor = 0n;

  constructor(name: string) {
    this.name = name;
  }

  /** Writes make a collection that is not there: the trap that migrations exist for. */
  collection(name: string): SimulatedCollection {
    const found = this.collections.get(name) ?? new SimulatedCollection(`${this.name}.${name}`, {});
    this.collections.set(name, found);
    return found;
  }

  firstBatch(ns: string, documents: Document[], batchSize = 101): Document {
    const rest = documents.slice(batchSize);
    const id = rest.length > 0 ? ++this.#lastCursor : 0n;
    if (id > 0n) this.#cursors.set(id, { ns, rest });
    return { cursor: { id, ns, firstBatch: documents.slice(0, batchSize) }, ok: 1 };
  }

  nextBatch(id: bigint, batchSize = 101): Document {
    const cursor = this.#cursors.get(id);
    if (!cursor) throw new Refusal('CursorNotFound', `cursor id ${id} not found`);
    const nextBatch = cursor.rest.splice(0, batchSize);
    const done = cursor.rest.length === 0;
    if (done) this.#cursors.delete(id);
    return { cursor: { id: done ? 0n : id, ns: cursor.ns, nextBatch }, ok: 1 };
  }

  killCursor(id: bigint): boolean {
    return this.#cursors.delete(id);
  }
}

const fields: Record<string, string[]> = {
  ping: [],
  find: ['filter', 'sort', 'limit', 'skip', 'projection', 'batchSize', 'singleBatch'],
  getMore: ['collection', 'batchSize'],
  killCursors: ['cursors'],
  insert: ['documents', 'ordered', 'bypassDocumentValidation'],
  update: ['updates', 'ordered', 'bypassDocumentValidation'],
  delete: ['deletes', 'ordered'],
  aggregate: ['pipeline', 'cursor'],
  create: ['timeseries', 'expireAfterSeconds'],
  createIndexes: ['indexes', 'commitQuorum'],
  listIndexes: ['cursor'],
  listCollections: ['filter', 'nameOnly', 'cursor', 'authorizedCollections'],
  collMod: ['expireAfterSeconds'],
  dropDatabase: [],
  endSessions: [],
  explain: ['verbosity'],
};

/** Which of the commands change data: a secondary refuses them, a repeated one is answered from memory. */
export const writes = new Set([
  'insert',
  'update',
  'delete',
  'create',
  'createIndexes',
  'collMod',
  'dropDatabase',
]);

/** Each of the statements of a write; an error of one stops the rest only when they are ordered. */
function eachStatement(
  command: Document,
  statements: Document[],
  run: (statement: Document, index: number) => void,
): Document[] {
  const writeErrors: Document[] = [];
  for (const [index, statement] of statements.entries()) {
    try {
      run(statement, index);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      writeErrors.push({ index, code: error.code, errmsg: error.message, ...error.more });
      if (command['ordered'] !== false) break;
    }
  }
  return writeErrors;
}

const outcome = (counts: Document, writeErrors: Document[]): Document => ({
  ...counts,
  ...(writeErrors.length > 0 ? { writeErrors } : {}),
  ok: 1,
});

const commands: Record<string, Run> = {
  ping: () => ({ ok: 1 }),
  endSessions: () => ({ ok: 1 }),

  find(command, database) {
    const name = String(command['find']);
    const found =
      database.collections.get(name)?.find((command['filter'] as Document | undefined) ?? {}) ?? [];
    const cursor = new Query({}).find<Document>(found, command['projection'] as never);
    if (command['sort']) cursor.sort(command['sort'] as Record<string, 1 | -1>);
    if (command['skip']) cursor.skip(Number(command['skip']));
    if (command['limit']) cursor.limit(Number(command['limit']));
    const size = command['singleBatch'] === true ? Number.MAX_SAFE_INTEGER : command['batchSize'];
    return database.firstBatch(
      `${database.name}.${name}`,
      cursor.all(),
      size === undefined ? size : Number(size),
    );
  },

  getMore: (command, database) =>
    database.nextBatch(BigInt(String(command['getMore'])), Number(command['batchSize'] ?? 101)),

  killCursors(command, database) {
    const ids = (command['cursors'] as unknown[]).map((id) => BigInt(String(id)));
    return { cursorsKilled: ids.filter((id) => database.killCursor(id)), ok: 1 };
  },

  insert(command, database) {
    const collection = database.collection(String(command['insert']));
    let n = 0;
    const errors = eachStatement(command, command['documents'] as Document[], (document) => {
      collection.insert(document);
      n++;
    });
    return outcome({ n }, errors);
  },

  update(command, database) {
    const collection = database.collection(String(command['update']));
    let [n, nModified] = [0, 0];
    const upserted: Document[] = [];
    const errors = eachStatement(command, command['updates'] as Document[], (statement, index) => {
      onlyKnown(statement, ['q', 'u', 'multi', 'upsert'], 'update.updates');
      const done = collection.update(statement);
      n += done.n;
      nModified += done.modified;
      if (done.upserted !== undefined) upserted.push({ index, _id: done.upserted });
    });
    return outcome({ n, nModified, ...(upserted.length > 0 ? { upserted } : {}) }, errors);
  },

  delete(command, database) {
    const collection = database.collection(String(command['delete']));
    let n = 0;
    const errors = eachStatement(command, command['deletes'] as Document[], ({ q, limit }) => {
      n += collection.remove(q as Document, Number(limit));
    });
    return outcome({ n }, errors);
  },

  aggregate(command, database) {
    const name = String(command['aggregate']);
    const collection = database.collections.get(name);
    let found: Document[] | undefined;
    for (const stage of command['pipeline'] as Document[]) {
      const [operator = ''] = Object.keys(stage);
      if (operator === '$geoNear' && found === undefined) {
        const near = stage[operator] as Document;
        onlyKnown(near, ['near', 'key', 'distanceField', 'maxDistance', 'query', 'spherical'], '$geoNear');
        found = collection?.near(near) ?? [];
      } else if (['$match', '$sort', '$limit', '$project', '$group'].includes(operator)) {
        found = aggregate(found ?? collection?.find({}) ?? [], [stage]);
      } else throw new Refusal('UnrecognizedStage', `Unrecognized pipeline stage name: '${operator}'`);
    }
    const { batchSize } = (command['cursor'] ?? {}) as { batchSize?: number };
    return database.firstBatch(`${database.name}.${name}`, found ?? [], batchSize);
  },

  create(command, database) {
    const name = String(command['create']);
    const { timeseries, expireAfterSeconds } = command;
    const wanted = {
      ...(timeseries ? { timeseries } : {}),
      ...(expireAfterSeconds === undefined ? {} : { expireAfterSeconds }),
    };
    const there = database.collections.get(name);
    if (there) {
      // Since 7.0 the same options once more are no error
      if (EJSON.stringify(there.options) === EJSON.stringify(wanted)) return { ok: 1 };
      throw new Refusal(
        'NamespaceExists',
        `namespace ${database.name}.${name} already exists, but with different options`,
      );
    }
    if (timeseries)
      onlyKnown(timeseries as Document, ['timeField', 'metaField', 'granularity'], 'create.timeseries');
    else if (expireAfterSeconds !== undefined)
      throw new Refusal(
        'InvalidOptions',
        "'expireAfterSeconds' is only supported on time-series collections",
      );
    database.collections.set(name, new SimulatedCollection(`${database.name}.${name}`, wanted));
    return { ok: 1 };
  },

  createIndexes(command, database) {
    const name = String(command['createIndexes']);
    const createdCollectionAutomatically = !database.collections.has(name);
    const collection = database.collection(name);
    const numIndexesBefore = collection.indexes.length;
    for (const spec of command['indexes'] as IndexSpec[]) {
      onlyKnown(
        spec,
        ['key', 'name', 'unique', 'sparse', 'partialFilterExpression', 'expireAfterSeconds'],
        'createIndexes.indexes',
      );
      collection.addIndex(spec);
    }
    return {
      numIndexesBefore,
      numIndexesAfter: collection.indexes.length,
      createdCollectionAutomatically,
      ok: 1,
    };
  },

  listIndexes(command, database) {
    const name = String(command['listIndexes']);
    const collection = database.collections.get(name);
    if (!collection) throw new Refusal('NamespaceNotFound', `ns does not exist: ${database.name}.${name}`);
    return database.firstBatch(`${database.name}.${name}`, collection.indexes);
  },

  listCollections(command, database) {
    const all = [...database.collections].map(([name, { options }]) => ({
      name,
      type: options['timeseries'] ? 'timeseries' : 'collection',
      options,
    }));
    const fits = new Query((command['filter'] as Document | undefined) ?? {});
    return database.firstBatch(
      `${database.name}.$cmd.listCollections`,
      all.filter((one) => fits.test(one)),
    );
  },

  collMod(command, database) {
    const name = String(command['collMod']);
    const collection = database.collections.get(name);
    if (!collection) throw new Refusal('NamespaceNotFound', `ns does not exist: ${database.name}.${name}`);
    if (!collection.timeseries)
      throw new Refusal('InvalidOptions', 'Only time-series collections are simulated');
    collection.options['expireAfterSeconds'] = command['expireAfterSeconds'];
    return { ok: 1 };
  },

  dropDatabase(_command, database) {
    database.collections.clear();
    return { ok: 1 };
  },

  explain(command, database) {
    const inner = command['explain'] as Document;
    const collection = database.collections.get(
      String(inner['find'] ?? inner['aggregate'] ?? inner['update']),
    );
    const index = collection?.indexFor((inner['filter'] as Document | undefined) ?? {});
    const winningPlan = index
      ? { stage: 'FETCH', inputStage: { stage: 'IXSCAN', indexName: index.name, keyPattern: index.key } }
      : { stage: 'COLLSCAN' };
    return { queryPlanner: { namespace: collection?.name, winningPlan }, ok: 1 };
  },
};

function onlyKnown(document: Document, known: readonly string[], where: string): void {
  const unknown = Object.keys(document).find((key) => !known.includes(key));
  if (unknown) throw new Refusal('UnknownField', `BSON field '${where}.${unknown}' is an unknown field.`);
}

/** Runs one command. @throws Refusal */
export function runCommand(command: Document, database: Database): Document {
  const [name = ''] = Object.keys(command);
  const run = commands[name];
  if (!run) throw new Refusal('CommandNotFound', `no such command: '${name}'`);
  onlyKnown(command, [name, ...(fields[name] ?? []), ...generic], name);
  return run(command, database);
}
