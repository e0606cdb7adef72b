/** The ways into the queues: what comes at once goes in few jobs, since a worker has many messages under way at once. */
import { GroupCommit } from '../../lib/group-commit.ts';
import type { Jobs } from '../../mixins/queue.ts';
import { type Lane, lanes } from './notification.ts';

/** Notifications to bring on. What is to be done with each stands in its record. */
export interface LaneJob {
  ids: string[];
}

/** In one job: enough to keep a worker busy, few enough that they all begin soon. */
const perJob = 25;

export class LaneQueues {
  readonly #lanes: ReadonlyMap<Lane, GroupCommit<string, true>>;

  constructor(queues: Readonly<Record<Lane, Jobs<LaneJob>>>) {
    this.#lanes = new Map(
      lanes.map((lane) => [
        lane,
        new GroupCommit<string, true>({
          maxSize: 20 * perJob,
          maxUnderWay: 2,
          commit: async (ids) => {
            const jobs: { data: LaneJob; options: object }[] = [];
            for (let start = 0; start < ids.length; start += perJob)
              jobs.push({ data: { ids: ids.slice(start, start + perJob) }, options: {} });
            await queues[lane].addBulk(jobs);
            return ids.map(() => true as const);
          },
        }),
      ]),
    );
  }

  /** Resolves when Redis has it queued. */
  async add(lane: Lane, id: string): Promise<void> {
    await this.#lanes.get(lane)?.add(id);
  }
}
