import mongoose from 'mongoose';
import { type MongoSimulator, startMongoSimulator } from './mongo-simulator/index.ts';

/** A MongoDB for a test: the server at MONGO_URI, with a database of the test's own, or else the simulator. */
export interface TestMongo {
  /** For MONGO_URI of the system under test. */
  uri: string;
  /** Null with a real server: then nothing can be said about what was sent. */
  simulator: MongoSimulator | null;
  stop(): Promise<void>;
}

/** Tests that look at what was sent, or take the server away, need the simulator. */
const hasRealMongo = (process.env['MONGO_URI'] ?? '') !== '';
export const mongoBackend = hasRealMongo
  ? 'MongoDB at MONGO_URI'
  : "the simulator of MongoDB's wire protocol";

let announced = false;

export async function startMongo(): Promise<TestMongo> {
  const real = process.env['MONGO_URI'];
  if (!announced) process.stderr.write(`The MongoDB path is tested against ${mongoBackend}\n`);
  announced = true;
  if (!real) {
    const simulator = await startMongoSimulator();
    return { uri: simulator.uri, simulator, stop: () => simulator.stop() };
  }
  const uri = new URL(real);
  uri.pathname = `/ride_test_${process.pid}_${Date.now().toString(36)}`;
  return {
    uri: uri.href,
    simulator: null,
    async stop() {
      const client = await new mongoose.mongo.MongoClient(uri.href).connect();
      await client.db().dropDatabase();
      await client.close();
    },
  };
}
