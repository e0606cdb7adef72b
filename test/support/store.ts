import type { Service, ServiceBroker, ServiceSchema } from 'moleculer';
import type { Collection } from '../../mixins/collection.ts';
import { makeBroker } from './broker.ts';

export interface OpenStore<T extends { _id: string }> {
  collection: Collection<T>;
  service: Service;
  broker: ServiceBroker;
}

/** A process that has services of these mixins and nothing else; the first one's store. */
export async function openStore<T extends { _id: string }>(
  env: Record<string, string>,
  ...mixins: object[]
): Promise<OpenStore<T>> {
  const broker = makeBroker('store', env);
  const services = mixins.map((mixin, index) =>
    broker.createService({ name: `keeper-${index}`, mixins: [mixin as Partial<ServiceSchema>] }),
  );
  await broker.start();
  const service = services[0] as Service & { store: Collection<T> };
  return { collection: service.store, service, broker };
}
