import type { Service } from 'moleculer';
import type { mongo } from 'mongoose';

/** R12.5. ms */
const slowMs = 100;
/** One plan for each kind of query in this time: asking for plans must not slow down what is slow already. ms */
const explainEveryMs = 60_000;

const explained = ['find', 'aggregate'];
/** What the driver adds to any command, and no query has. */
const generic = new Set([
  '$db',
  '$clusterTime',
  '$readPreference',
  'lsid',
  'txnNumber',
  'maxTimeMS',
  'writeConcern',
]);
const watched = new Set([...explained, 'update', 'insert', 'delete', 'getMore']);

/** A query with its values left out, for the log: `{status: ?, departAt: {$gt: ?}}`. */
export function shapeOf(value: unknown): unknown {
  if (Array.isArray(value))
    return [...new Set(value.map((item) => JSON.stringify(shapeOf(item))))].map(
      (item) => JSON.parse(item) as unknown,
    );
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype)
    return '?';
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shapeOf(inner)]));
}

interface Plan {
  stage?: string;
  indexName?: string;
  inputStage?: Plan;
  inputStages?: Plan[];
}

/** A plan in a line, without the values in it: `FETCH < IXSCAN status_1_departAt_1`. */
export function planOf({ stage = '?', indexName, inputStage, inputStages = [] }: Plan): string {
  const inputs = [...(inputStage ? [inputStage] : []), ...inputStages].map(planOf);
  return `${stage}${indexName ? ` ${indexName}` : ''}${inputs.length > 0 ? ` < ${inputs.join(' + ')}` : ''}`;
}

interface Explained {
  queryPlanner?: { winningPlan?: Plan };
  stages?: {
    $cursor?: { queryPlanner?: { winningPlan?: Plan } };
    $geoNearCursor?: { queryPlanner?: { winningPlan?: Plan } };
  }[];
}

/** Logs each query that took longer than 100 ms, with its shape, and its plan where MongoDB explains it. */
export function logSlowQueries(client: mongo.MongoClient, logger: Service['logger']): void {
  const running = new Map<number, { name: string; db: string; command: mongo.Document }>();
  const lastPlan = new Map<string, number>();

  async function planFor(db: string, name: string, command: mongo.Document): Promise<string> {
    if (!explained.includes(name)) return 'not explained';
    const query = Object.fromEntries(Object.entries(command).filter(([key]) => !generic.has(key)));
    const answer = (await client
      .db(db)
      .command(
        { explain: query, verbosity: 'queryPlanner' },
        { readPreference: 'secondaryPreferred' },
      )) as Explained;
    const [first] = answer.stages ?? [];
    const planner =
      answer.queryPlanner ?? first?.$cursor?.queryPlanner ?? first?.$geoNearCursor?.queryPlanner;
    return planner?.winningPlan ? planOf(planner.winningPlan) : 'unknown';
  }

  client.on('commandStarted', ({ requestId, commandName: name, databaseName: db, command }) => {
    if (watched.has(name)) running.set(requestId, { name, db, command });
  });
  client.on('commandFailed', ({ requestId }) => running.delete(requestId));
  client.on('commandSucceeded', ({ requestId, duration }) => {
    const query = running.get(requestId);
    running.delete(requestId);
    if (!query || duration <= slowMs) return;
    const { name, db, command } = query;
    const shape = JSON.stringify(shapeOf(command['filter'] ?? command['pipeline'] ?? {}));
    const line = {
      command: name,
      collection: String(command[name]),
      durationMs: Math.round(duration),
      shape,
    };
    const kind = `${name} ${line.collection} ${shape}`;
    const due = Date.now() - (lastPlan.get(kind) ?? 0) > explainEveryMs;
    if (!due) return logger.warn('A slow query', line);
    // Shapes come from our own code: there are few
    lastPlan.set(kind, Date.now());
    planFor(db, name, command).then(
      (plan) => logger.warn('A slow query', { ...line, plan }),
      (error: unknown) => logger.warn('A slow query', { ...line, plan: 'could not be had', error }),
    );
  });
}
