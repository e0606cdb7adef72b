/**
 * `npm run migrate`: makes every collection and index in MONGO_URI before a release needs them. Services do the same when
 * they start; on large collections an index takes long, and is better made before. Safe to repeat, and beside anything else.
 */
import { glob } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import mongoose from 'mongoose';
import { ConfigError, loadConfig } from '../lib/config.ts';
import { declaredCollections, migrate } from '../mixins/migrations.ts';

async function main(): Promise<void> {
  const { mongoUri } = loadConfig(process.env);
  if (!mongoUri) throw new ConfigError([{ key: 'MONGO_URI', message: 'is required to migrate' }]);
  // Loading a service's file declares its collections, and starts nothing
  const root = fileURLToPath(new URL('..', import.meta.url));
  for await (const file of glob('services/**/*.{service,collection}.ts', { cwd: root }))
    await import(pathToFileURL(join(root, file)).href);
  const client = new mongoose.mongo.MongoClient(mongoUri, {
    appName: 'ride-safety migrate',
    serverSelectionTimeoutMS: 10_000,
    writeConcern: { w: 'majority', journal: true },
    readPreference: 'primary',
  });
  try {
    await client.connect();
    for (const spec of declaredCollections()) {
      await migrate(client.db(), spec, hostname());
      process.stdout.write(`${spec.name}: ready\n`);
    }
  } finally {
    await client.close();
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
