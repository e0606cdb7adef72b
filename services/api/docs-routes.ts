/** The two routes that describe the others. Anybody may read them, and they count against no limit. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ServiceBroker } from 'moleculer';
import { contracts } from '../../contracts/index.ts';
import { docsPage } from './docs-page.ts';
import { openApi, type RegisteredAction } from './openapi.ts';

interface Docs {
  routes: string;
  json: string;
  html: string;
}

/** Made again only when the routes change, with the services that come and go. */
let latest: Docs | undefined;

function docsOf(broker: ServiceBroker): Docs {
  const listed = broker.registry.getActionList({ onlyAvailable: true, skipInternal: true });
  const actions: RegisteredAction[] = listed.flatMap(({ name, action }) =>
    action?.rest ? [{ name, rest: action.rest, permissions: action.permissions }] : [],
  );
  const routes = JSON.stringify(actions);
  if (latest?.routes !== routes) {
    const document = openApi(actions, contracts);
    latest = { routes, json: JSON.stringify(document), html: docsPage(document) };
  }
  return latest;
}

const send = (res: ServerResponse, type: string, body: string) =>
  res.writeHead(200, { 'content-type': `${type}; charset=utf-8` }).end(body);

export const docsRoutes = {
  'GET /api/v1/openapi.json'(this: { broker: ServiceBroker }, _req: IncomingMessage, res: ServerResponse) {
    send(res, 'application/json', docsOf(this.broker).json);
  },
  'GET /docs'(this: { broker: ServiceBroker }, _req: IncomingMessage, res: ServerResponse) {
    send(res, 'text/html', docsOf(this.broker).html);
  },
};
